"""A training in two phases: two Encode and two Train steps, the second Train going on from the first one's model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from params.settings import load_settings, parse_settings
from pipeline_definition.checks.preflight import preflight
from tests.pipeline_definition.definitions import all_steps, at_defaults, defaults_of, definition_of


@pytest.fixture(scope="module")
def steps() -> dict[str, dict[str, Any]]:
    return all_steps(definition_of("sd2_base"))


def arguments(steps: dict[str, dict[str, Any]], name: str) -> dict[str, Any]:
    found: dict[str, Any] = at_defaults(steps[name]["Arguments"], defaults_of(definition_of("sd2_base")))
    return found


def test_the_phases_are_as_published(steps: dict[str, dict[str, Any]]) -> None:
    first, second = (arguments(steps, name)["HyperParameters"] for name in ("Train", "TrainPhase2"))
    assert (first["training_samples"], first["global_batch_size"]) == ("1126400000", "2048")
    assert (second["training_samples"], second["global_batch_size"]) == ("1740800000", "2048")
    assert (first["initial_weights"], second["initial_weights"]) == ("scratch", "model")


def test_the_second_training_begins_with_the_firsts_model(steps: dict[str, dict[str, Any]]) -> None:
    channels = {item["ChannelName"]: item for item in steps["TrainPhase2"]["Arguments"]["InputDataConfig"]}
    source = channels["initial_model"]["DataSource"]["S3DataSource"]["S3Uri"]
    assert source == {"Get": "Steps.Train.ModelArtifacts.S3ModelArtifacts"}
    assert "initial_model" not in json.dumps(steps["Train"]["Arguments"])


def test_the_second_training_has_its_own_micro_batch_and_takes_the_rest_from_tune(
    steps: dict[str, dict[str, Any]],
) -> None:
    second = steps["TrainPhase2"]["Arguments"]["HyperParameters"]
    assert second["learning_rate"] == {"Get": "Steps.Tune.BestTrainingJob.TunedHyperParameters['learning_rate']"}
    assert second["micro_batch_size"] == "16"


def test_each_phase_has_latents_and_checkpoints_of_its_own_from_one_download(steps: dict[str, dict[str, Any]]) -> None:
    encodes, trains = ("Encode", "EncodePhase2"), ("Train", "TrainPhase2")
    words = [arguments(steps, name)["AppSpecification"]["ContainerArguments"] for name in encodes]
    shards, latents = ({of[of.index(flag) + 1] for of in words} for flag in ("--shards-uri", "--latents-uri"))
    assert len(shards) == 1 and {uri.rsplit("/", 1)[1] for uri in latents} == {"256px", "512px"}
    assert len({arguments(steps, name)["CheckpointConfig"]["S3Uri"] for name in trains}) == 2
    lustre = [arguments(steps, name)["InputDataConfig"][0]["DataSource"]["FileSystemDataSource"] for name in trains]
    assert [source["DirectoryPath"].rsplit("/", 1)[1] for source in lustre] == ["256px", "512px"]


def test_the_second_encode_waits_for_the_download_alone(steps: dict[str, dict[str, Any]]) -> None:
    text = json.dumps(steps["EncodePhase2"])
    assert "Steps.Download." in text and "DependsOn" not in steps["EncodePhase2"]
    assert not any(f"Steps.{other}." in text for other in ("Encode", "Tune", "Train"))


@pytest.mark.parametrize("name", ["Evaluate", "Register", "CreateModel"])
def test_what_follows_takes_the_last_phases_model(steps: dict[str, dict[str, Any]], name: str) -> None:
    text = json.dumps(steps[name])
    assert "Steps.TrainPhase2.ModelArtifacts" in text and "Steps.Train.ModelArtifacts" not in text


def test_evaluation_compares_with_pictures_of_the_last_phases_size(steps: dict[str, dict[str, Any]]) -> None:
    assert "Steps.EncodePhase2.ProcessingOutputConfig.Outputs['reference']" in json.dumps(steps["Evaluate"])


def test_without_the_section_there_is_one_phase() -> None:
    definition = definition_of("octank_100gb")
    assert "Phase2" not in json.dumps(definition)


def local_settings(text: str) -> Any:
    return parse_settings("local: {}\n" + text, "x.yaml")


@pytest.mark.parametrize(
    ("text", "parameter", "fix"),
    [
        ("phase_2: {resolution_px: 512}", "download.image_size_px", "512 or more, or phases.0.resolution_px"),
        ("encode: {resolution_px: 512}", "download.image_size_px", "512 or more, or encode.resolution_px"),
        ("phase_2: {resolution_px: 256}", "phases.0.resolution_px", "another size"),
    ],
)
def test_phases_that_do_not_fit_are_refused(text: str, parameter: str, fix: str) -> None:
    found = {finding.parameter: finding for finding in preflight(local_settings(text), definition_of("local"), {})}
    assert fix in found[parameter].fix


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("TrainingSamplesPhase2", "10000000", "4,882.81 steps of 2,048"),
        ("TrainingSamplesPhase2", "2048000", "end within the warm-up"),
        ("TrainingPhase2InstanceCount", "3", "does not divide by TrainPhase2's micro-batch of 16"),
        ("EncodePhase2InstanceType", "ml.c6i.4xlarge", "EncodePhase2 needs one"),
    ],
)
def test_the_second_phases_arithmetic_is_checked_before_the_start(name: str, value: str, problem: str) -> None:
    settings = load_settings(Path("params/sd2_base.yaml"))
    found = preflight(settings, definition_of("sd2_base"), {name: value})
    assert any(finding.parameter == name and problem in finding.problem for finding in found), found
    if "warm-up" in problem:
        assert any("phases.0.warmup_samples" in finding.fix for finding in found)
