"""`sd-pipeline init`: five answers make a parameter set that builds and that nothing blocks but the missing account."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from params.settings import load_settings
from pipeline_definition.checks.preflight import preflight
from pipeline_definition.cli import app
from pipeline_definition.commands.checks import definition_text
from pipeline_definition.commands.init import _sizes
from pipeline_definition.infrastructure.stack import fill
from tests.pipeline_definition.checks.test_preflight import STACK

QUESTIONS = ("--name", "--url-table", "--rows", "--resolution-px", "--instance-type")
ANSWERS = ("birds", "s3://own-bucket/birds/", "200000", "512", "ml.g5.12xlarge")


@pytest.fixture(autouse=True)
def empty(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def init(*words: str, answers: str = "") -> Result:
    return CliRunner().invoke(app, ["init", *words], input=answers)


def flags(**changed: str) -> list[str]:
    values = dict(zip(QUESTIONS, ANSWERS, strict=True)) | {
        f"--{key.replace('_', '-')}": v for key, v in changed.items()
    }
    return [word for pair in values.items() for word in pair]


def test_questions_and_flags_write_the_same_file() -> None:
    asked = init("--out", "asked.yaml", answers="\n".join(ANSWERS) + "\n")
    assert asked.exit_code == 0, asked.output
    assert init(*flags()).exit_code == 0
    assert Path("asked.yaml").read_text().replace("asked.yaml", "birds.yaml") == Path("birds.yaml").read_text()
    assert Path("birds.yaml").read_text().startswith("# birds: made by `sd-pipeline init`")


def test_what_is_asked_is_what_the_set_says() -> None:
    init(*flags())
    made = load_settings(Path("birds.yaml"))
    assert (made.data.url_table, made.data.rows) == ("s3://own-bucket/birds/", 200_000)
    assert (made.encode.resolution_px, made.download.image_size_px, made.endpoint.default_size_px) == (512,) * 3
    assert made.train.job.instance_type == made.tune.job.instance_type == "ml.g5.12xlarge"
    assert {made.pipeline_name, made.data.name, made.registry.group, made.endpoint.name} == {"birds"}


@pytest.mark.parametrize("rows", ["100", "999999", "1000000", "20000000"])
def test_with_a_stack_nothing_blocks_its_start(rows: str) -> None:
    assert init(*flags(rows=rows, instance_type="ml.p4d.24xlarge")).exit_code == 0
    made = fill(load_settings(Path("birds.yaml")), STACK)
    found = preflight(made, json.loads(definition_text(made)), {"MaxRows": rows})
    assert [str(finding) for finding in found if finding.blocking] == []


@settings(max_examples=200, deadline=None)
@given(st.integers(100, 10_000_000_000))
def test_sizes_are_whole_batches_and_leave_pictures_to_train_on(rows: int) -> None:
    sizes = {
        name: float(str(value).replace(",", "")) for name, value in _sizes(rows, 256).items() if name != "micro_batches"
    }
    assert sizes["training_samples"] % sizes["batch"] == sizes["trial_samples"] % sizes["batch"] == 0
    assert (
        sizes["warmup_samples"] < sizes["training_samples"] and sizes["trial_warmup_samples"] < sizes["trial_samples"]
    )
    assert 2 <= sizes["evaluation_samples"] <= min(30_000, sizes["heldout_fraction"] * rows)
    assert sizes["heldout_fraction"] <= 0.1


def test_a_step_that_takes_too_long_on_the_chosen_hosts_is_told() -> None:
    result = init(*flags(rows="1130000000", instance_type="ml.g5.12xlarge"))
    assert result.exit_code == 0 and Path("birds.yaml").is_file()
    assert "note: train.job.max_runtime_s: Train is forecast to take" in result.output


def test_an_answer_that_cannot_be_used_names_its_flag_and_writes_nothing() -> None:
    for name, value, problem in (
        ("name", "a b", "--name a b: write letters and digits"),
        ("url_table", "birds.csv", "--url-table: 'birds.csv' is not an s3:// address"),
        ("resolution_px", "500", "--resolution-px 500: give a multiple of 64"),
        ("instance_type", "ml.nosuch.large", "SageMaker has no 'ml.nosuch.large'"),
    ):
        result = init(*flags(**{name: value}))
        assert result.exit_code == 2, result.output
        assert problem in result.output
    assert [*Path().glob("*.yaml")] == []


def test_a_file_that_is_there_is_kept() -> None:
    Path("birds.yaml").write_text("mine", encoding="utf-8")
    result = init(*flags())
    assert (result.exit_code, Path("birds.yaml").read_text()) == (2, "mine")
    assert "--out birds.yaml: is there already" in result.output


def test_an_address_is_text_whatever_is_in_it() -> None:
    assert init(*flags(url_table='s3://own/a: "b" #c')).exit_code == 0
    assert load_settings(Path("birds.yaml")).data.url_table == 's3://own/a: "b" #c'
