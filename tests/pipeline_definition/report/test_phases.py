"""A training in two phases is told phase by phase, and its files are gathered apart."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline_definition.artifacts import Artifacts
from pipeline_definition.artifacts.collection import phase_steps
from pipeline_definition.report.page import render
from pipeline_definition.report.run import Run, run_of
from tests.pipeline_definition.definitions import definition_of
from tests.pipeline_definition.report import example_runs
from tests.pipeline_definition.report.example_runs import LATENTS_MANIFEST, SECONDS, execution, write_json


@pytest.fixture(scope="module")
def two_phases(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = example_runs.full_run(tmp_path_factory.mktemp("run"))
    seconds = {name: SECONDS[name] for name in ("Download", "Encode", "Tune", "Train")}
    seconds |= {"EncodePhase2": 60.0, "TrainPhase2": 700.0, "Evaluate": 61.3}
    content = execution("Succeeded", seconds)
    jobs = {step["name"]: step for step in content["steps"]}
    for name, kind in (("EncodePhase2", "ProcessingJob"), ("TrainPhase2", "TrainingJob")):
        jobs[name]["job"] = jobs["Train"]["job"] | {"kind": kind, "name": f"{name.lower()}-job"}
    write_json(folder / "execution.json", content)
    write_json(folder / "definition.json", definition_of("sd2_base"))
    entry = {"seen_samples": 1126, "training_loss": 0.25, "compute_s": 1.0, "images_per_s": 137.5}
    former = folder / "phase-1"
    write_json(former / "latents_manifest.json", {**LATENTS_MANIFEST, "resolution_px": 48})
    write_json(former / "lineage.json", {"seen_samples": 1126})
    (former / "training_log.jsonl").write_text(json.dumps(entry) + "\n")
    return run_of(Artifacts.load(folder), {})


def test_each_phase_has_its_own_log_and_its_own_step(two_phases: Run) -> None:
    first, second = two_phases.phases
    assert (first.phase, second.phase) == ("Train", "TrainPhase2")
    assert [entry["training_loss"] for entry in first.artifacts.training_log] == [0.25]
    trained = [phase.of_kind("TrainingJob") for phase in (first, second)]
    assert [step.seconds for step in trained if step] == [SECONDS["Train"], 700.0]


def test_the_page_tells_of_both_under_names_of_their_own(two_phases: Run) -> None:
    page = render(two_phases)
    for words in (
        "How it was trained: Train<",
        "How it was trained: TrainPhase2<",
        "What was encoded for Train<",
        "48 px",
    ):
        assert words in page, words
    identifiers = [part.split('"', 1)[0] for part in page.split(' id="')[1:]]
    assert len(identifiers) == len(set(identifiers))


def test_a_run_of_one_phase_is_told_as_before(tmp_path: Path) -> None:
    run = run_of(Artifacts.load(example_runs.full_run(tmp_path)), {})
    assert run.phases == (run,)
    assert "How it was trained<" in render(run)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("local", [["Encode"], ["Train"]]),
        ("sd2_base", [["Encode", "EncodePhase2"], ["Train", "TrainPhase2"]]),
        ("sd3_budget", [["Encode", "EncodePhase2", "EncodePhase3"], ["Train", "TrainPhase2", "TrainPhase3"]]),
    ],
)
def test_steps_that_do_the_same_for_one_phase_each_are_found(name: str, expected: Any) -> None:
    assert phase_steps(definition_of(name)) == expected


@pytest.mark.parametrize(
    ("lag_s", "words"), [(0.0, "none was waiting"), (2400.0, "a later one waited 40 min")], ids=["landed", "late"]
)
def test_the_page_says_whether_checkpoints_reached_s3(tmp_path: Path, lag_s: float, words: str) -> None:
    folder = example_runs.full_run(tmp_path)
    content = json.loads((folder / "execution.json").read_text())
    train = next(step for step in content["steps"] if step["name"] == "Train")
    train["job"]["final_metrics"] = {"checkpoint_age_s": 90.0, "checkpoint_lag_s": lag_s}
    write_json(folder / "execution.json", content)
    page = render(run_of(Artifacts.load(folder), {}))
    assert "newest checkpoint in S3" in page and words in page
