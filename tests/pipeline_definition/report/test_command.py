"""`sd-pipeline report`: the page of a run that somebody else gathered, and of one that is asked for its artifacts."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from params.settings import load_settings
from pipeline_definition.artifacts import Artifacts
from pipeline_definition.cli import app
from pipeline_definition.cost.forecast import forecast
from pipeline_definition.prompting.votes import PicturePair, VoteFile
from pipeline_definition.report.bill import expected_cost, with_forecast
from tests.pipeline_definition.definitions import defaults_of, definition_of
from tests.pipeline_definition.report import example_runs

SET = Path("params/sd2_base.yaml")


def run(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["report", *arguments], catch_exceptions=False)
    return done.exit_code, done.output


@pytest.fixture
def artifacts(tmp_path: Path) -> Artifacts:
    """Of a run on AWS of a set for AWS."""
    folder = example_runs.aws_run(tmp_path / "run" / "artifacts")
    definition = definition_of("sd2_base")
    values = defaults_of(definition) | {"TrainingInstanceCount": 2}
    example_runs.write_json(folder / "definition.json", definition)
    example_runs.write_json(folder / "parameters.json", {"values": values, "defaults": defaults_of(definition)})
    return Artifacts.load(folder)


@pytest.mark.parametrize("inside", ["", "artifacts"])
def test_a_gathered_run_needs_no_connection(tmp_path: Path, inside: str) -> None:
    example_runs.billed_run(tmp_path / "run" / "artifacts")
    status, said = run(str(tmp_path / "run" / inside))
    assert status == 0
    page = tmp_path / "run" / "report.html"
    assert said.splitlines()[0] == str(page)
    assert "What it cost" in page.read_text(encoding="utf-8")


def test_votes_beside_the_run_or_named_are_shown_on_its_page_and_missing_ones_are_refused(tmp_path: Path) -> None:
    example_runs.full_run(tmp_path / "run" / "artifacts")
    status, said = run(str(tmp_path / "run"), "--votes", str(tmp_path / "none.jsonl"))
    assert (status, "none.jsonl: no such file" in said) == (2, True)
    assert run(str(tmp_path / "run"))[0] == 0
    page = tmp_path / "run" / "report.html"
    assert "What people prefer" not in page.read_text(encoding="utf-8")
    file = VoteFile(tmp_path / "run" / "votes.jsonl")
    for number in range(20):
        pictures = (f"a{number}", f"b{number}")
        pair = PicturePair(f"p{number}", "", 0, ("<trained>", "generic"), ("arn:1", "arn:2"), {}, pictures)
        file.cast("Ann", pair, "first", "generic")
    assert run(str(tmp_path / "run"))[0] == 0
    text = page.read_text(encoding="utf-8")
    assert "All: &lt;trained&gt; is preferred to generic in 98 % of pairs." in text
    assert "arn:2" in text
    (tmp_path / "run" / "votes.jsonl").rename(tmp_path / "named.jsonl")
    assert run(str(tmp_path / "run"), "--votes", str(tmp_path / "named.jsonl"))[0] == 0
    assert page.read_text(encoding="utf-8") == text


def test_programs_get_json_and_choose_the_place(tmp_path: Path) -> None:
    example_runs.broken_run(tmp_path / "run" / "artifacts")
    status, said = run(str(tmp_path / "run"), "--json", "--out", str(tmp_path / "page.html"))
    assert status == 0
    told = json.loads(said)
    assert told["page"] == str(tmp_path / "page.html")
    assert told["status"] == "Failed"
    assert list(told["left_out"]) == ["training_log.jsonl"]
    assert (tmp_path / "page.html").is_file()


def test_the_forecast_is_that_of_the_run_with_its_own_parameters(artifacts: Artifacts) -> None:
    settings = load_settings(SET)
    kept = with_forecast(settings, artifacts).forecast or {}
    bill = forecast(settings, artifacts.definition, {"TrainingInstanceCount": "2"})
    assert kept["usd"] == pytest.approx(bill.usd("on_demand"))
    assert [line["step"] for line in kept["lines"]] == [line.step for line in bill.lines]
    assert kept["usd"] == pytest.approx(sum(line["usd"] for line in kept["lines"]))
    assert kept["usd_per_instance_hour"]["ml.p4d.24xlarge"] == bill.prices.instance_hour_usd("ml.p4d.24xlarge")


def test_without_a_forecast_the_page_says_why(artifacts: Artifacts) -> None:
    other = load_settings(SET).model_copy(
        update={"account": load_settings(SET).account.model_copy(update={"region": "eu-west-1"})}
    )
    assert "eu-west-1" in expected_cost(other, artifacts)["problem"]


def test_a_run_on_this_machine_has_no_forecast(tmp_path: Path) -> None:
    folder = example_runs.full_run(tmp_path / "artifacts")
    kept = with_forecast(load_settings(Path("params/local.yaml")), Artifacts.load(folder))
    assert kept.forecast is None
    assert not (folder / "forecast.json").exists()
