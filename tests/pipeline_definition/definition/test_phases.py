"""A training in phases: an Encode and a Train step for each, a later Train going on from the former one's model."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from params.settings import Settings, SettingsError, load_settings, parse_settings
from pipeline_definition.checks.preflight import preflight
from pipeline_definition.cost.forecast import forecast, wall_hours
from pipeline_definition.cost.host_hours import priced
from pipeline_definition.definition.pipeline import build_definition
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


hosts = st.fixed_dictionaries({"instance_type": st.sampled_from(["ml.p4d.24xlarge", "ml.p5.48xlarge"])})
a_phase = st.fixed_dictionaries(
    {},
    optional={
        "resolution_px": st.sampled_from([512, 1024]),
        "training_samples": st.integers(1, 10**9),
        "micro_batch_size": st.integers(1, 64),
        "instance_hour_usd": st.floats(0, 100),
        "train": hosts,
        "encode": hosts,
        "train_settings": st.fixed_dictionaries({}, optional={"learning_rate": st.floats(1e-6, 1e-3)}),
    },
)


@given(phase=a_phase)
def test_a_section_of_the_first_release_and_a_list_of_one_are_the_same_settings(phase: dict[str, Any]) -> None:
    """And so the same bytes: a definition is a function of its settings."""
    old, new = (parse_settings(yaml.safe_dump(values), "x") for values in ({"phase_2": phase}, {"phases": [phase]}))
    assert old == new and old.phases == new.phases
    # As stacks and sets of the user's own read them back.
    assert Settings.model_validate(old.model_dump()) == new


def test_stable_diffusion_2_in_the_spelling_of_the_first_release_is_the_same_bytes() -> None:
    values = yaml.safe_load(Path("params/sd2_base.yaml").read_text(encoding="utf-8"))
    (values["phase_2"],) = values.pop("phases")
    old = parse_settings(yaml.safe_dump(values), "x")
    assert build_definition(priced(old)) == json.dumps(definition_of("sd2_base"), indent=2, ensure_ascii=False)


THREE = """
train: {prediction_type: flow}
evaluate: {sampler: dpm++}
endpoint: {sampler: dpm++}
tune: {global_batch_size: 512}
download: {image_size_px: 1024}
phases:
- {resolution_px: 512, training_samples: 1024000}
- resolution_px: 1024
  training_samples: 512000
  encode: {instance_type: ml.g6e.12xlarge}
  encode_settings: {max_train_rows: 100000}
  train_settings: {global_batch_size: 1024, learning_rate: 5.0e-05, timestep_shift: 3.0}
"""


@pytest.fixture(scope="module")
def three() -> dict[str, Any]:
    return json.loads(build_definition(priced(parse_settings(THREE, "x"))))


def test_of_three_phases_each_goes_on_from_the_one_before(three: dict[str, Any]) -> None:
    steps = all_steps(three)
    order = [name for name in steps if name.startswith(("Encode", "Train"))]
    assert order == ["Encode", "Train", "EncodePhase2", "TrainPhase2", "EncodePhase3", "TrainPhase3"]
    for former, name in (("Train", "TrainPhase2"), ("TrainPhase2", "TrainPhase3")):
        assert f"Steps.{former}.ModelArtifacts" in json.dumps(steps[name]["Arguments"]["InputDataConfig"])
    # Encode of every phase waits for Download alone.
    assert not any("DependsOn" in steps[name] for name in ("EncodePhase2", "EncodePhase3"))
    assert "Steps.TrainPhase3.ModelArtifacts" in json.dumps(steps["Evaluate"])
    resolved = at_defaults(steps, defaults_of(three))
    places = [resolved[name]["Arguments"]["CheckpointConfig"]["S3Uri"].rsplit("/", 1)[1] for name in order[1::2]]
    assert places == ["default", "default-phase2", "default-phase3"]
    lineage = json.dumps(steps["Register"])
    assert "training_samples_phase_2" in lineage and "training_samples_phase_3" in lineage


def test_what_a_phase_has_itself_is_neither_the_first_ones_nor_tunes(three: dict[str, Any]) -> None:
    steps = at_defaults(all_steps(three), defaults_of(three))
    first, second, third = (steps[f"Train{of}"]["Arguments"]["HyperParameters"] for of in ("", "Phase2", "Phase3"))
    assert [of["global_batch_size"] for of in (first, second, third)] == ["2048", "2048", "1024"]
    assert first["learning_rate"] == second["learning_rate"] == "s3://bucket/known-at-run-time"
    # A rate that was found for another batch is scaled; this phase's own is right as it is.
    assert [of["learning_rate_batch_size"] for of in (first, second, third)] == ["512", "512", "0"]
    assert (third["learning_rate"], third["timestep_shift"]) == ("5e-05", "3.0")
    assert "timestep_shift" not in second and third["initial_weights"] == "model"
    words = steps["EncodePhase3"]["Arguments"]["AppSpecification"]["ContainerArguments"]
    assert words[words.index("--max-train-rows") + 1] == "100000"
    names = [parameter["Name"] for parameter in three["Parameters"]]
    assert len(names) == len(set(names)) and {"GlobalBatchSizePhase3", "TrainingSamplesPhase3"} <= set(names)


def test_three_phases_are_forecast_one_by_one_and_their_encodes_run_beside(three: dict[str, Any]) -> None:
    found = forecast(parse_settings(THREE, "x"), three, {}, rows=1_000_000)
    hours = {line.step: line.hours for line in found.lines}
    trained = hours["Encode"] + hours["Tune"] + hours["Train"]
    for name in ("Phase2", "Phase3"):
        trained = max(trained, hours[f"Encode{name}"]) + hours[f"Train{name}"]
    assert found.hours == pytest.approx(hours["Download"] + trained + hours["Evaluate"])
    assert wall_hours(found.workload, [line for line in found.lines if "Encode" not in line.step]) < found.hours
    assert [phase.global_batch_size for phase in found.workload.phases] == [2048, 2048, 1024]
    assert found.usd("on_demand") == pytest.approx(sum(line.usd["on_demand"] or 0.0 for line in found.lines))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("phase_2: {}\nphases: []", "phase_2 is the first of phases"),
        ("phases: [{resolution: 512}]", "unknown key phases.0.resolution; did you mean phases.0.resolution_px?"),
        ("phases: [{}, {train_settings: {learnin_rate: 1}}]", "phases.1.train_settings.learnin_rate cannot differ"),
        ("phases: [{train_settings: {initial_weights: scratch}}]", "phases.0.train_settings.initial_weights cannot"),
        ("phases: [{train_settings: {budget_usd: 5}}]", "phases.0.train_settings.budget_usd cannot differ"),
        ("phases: [{encode_settings: {batch_size: 0}}]", "phases.0.encode_settings: batch_size: Input should be"),
        ("phases: [{train_settings: {prediction_type: flow}}]\nevaluate: {sampler: ddim}", "evaluate.sampler"),
    ],
)
def test_a_phase_that_cannot_be_is_refused_by_its_key(text: str, words: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(words)):
        parse_settings(text, "x")


def local_settings(text: str) -> Any:
    return parse_settings("local: {}\n" + text, "x.yaml")


@pytest.mark.parametrize(
    ("text", "parameter", "fix"),
    [
        ("phase_2: {resolution_px: 512}", "download.image_size_px", "512 or more, or phases.0.resolution_px"),
        ("encode: {resolution_px: 512}", "download.image_size_px", "512 or more, or encode.resolution_px"),
        ("phases: [{resolution_px: 128}, {resolution_px: 256}]", "phases.1.resolution_px", "another size"),
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
