"""The bill of a run: Cost Explorer's part, what it teaches the next forecast, and the command."""

import json
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber
from typer.testing import CliRunner

from params.settings import load_settings
from pipeline_definition.artifacts import Artifacts
from pipeline_definition.cli import app
from pipeline_definition.cost import corrections as corrected
from pipeline_definition.cost.actual import RUN_TAG, billed
from pipeline_definition.cost.corrections import Correction, load_corrections, write_corrections
from pipeline_definition.cost.forecast import forecast
from pipeline_definition.cost.training import CostError
from pipeline_definition.report.bill import corrections, with_forecast
from pipeline_definition.report.run import run_of
from tests.pipeline_definition.definitions import defaults_of, definition_of
from tests.pipeline_definition.report import example_runs

SET, START = Path("params/sd2_base.yaml"), datetime(2026, 11, 24, 2, tzinfo=UTC)


@pytest.fixture
def client() -> Any:
    keys = {"aws_access_key_id": "x", "aws_secret_access_key": "x"}
    return boto3.client("ce", region_name="us-east-1", **keys)


def answer(*services: tuple[str, str], token: str | None = None) -> dict[str, Any]:
    groups = [{"Keys": [name], "Metrics": {"UnblendedCost": {"Amount": usd, "Unit": "USD"}}} for name, usd in services]
    day = {"TimePeriod": {"Start": "2026-11-24", "End": "2026-11-25"}, "Groups": groups}
    return {"ResultsByTime": [day], **({"NextPageToken": token} if token else {})}


@pytest.fixture
def own_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "corrections.yaml"
    for function in (load_corrections, write_corrections):
        monkeypatch.setattr(function, "__defaults__", (path,))
    return path


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """The folder of a run of sd2_base that has ended well."""
    folder, definition = example_runs.aws_run(tmp_path / "run" / "artifacts"), definition_of("sd2_base")
    example_runs.write_json(folder / "definition.json", definition)
    example_runs.write_json(
        folder / "parameters.json", {"values": defaults_of(definition), "defaults": defaults_of(definition)}
    )
    with_forecast(load_settings(SET), Artifacts.load(folder))
    said = json.loads((folder / "forecast.json").read_text())
    ran = json.loads((folder / "execution.json").read_text())
    hours = {line["step"]: line["hours"] for line in said["lines"]}
    for step in ran["steps"]:
        if step["name"] in hours:
            step["seconds"] = 3600 * hours[step["name"]] * (1.5 if step["name"] == "Train" else 1.0)
    example_runs.write_json(folder / "execution.json", ran)
    return folder.parent


def test_every_page_and_day_of_a_run_is_summed_by_service(client: Any) -> None:
    with Stubber(client) as stub:
        asked = {
            "TimePeriod": {"Start": "2026-11-24", "End": "2026-11-26"},
            "Granularity": "DAILY",
            "Metrics": ["UnblendedCost"],
            "Filter": {"Tags": {"Key": RUN_TAG, "Values": ["arn"]}},
            "GroupBy": [{"Type": "DIMENSION", "Key": "SERVICE"}],
        }
        first = answer(("Amazon SageMaker", "10.5"), ("Amazon S3", "1"), token="2")
        stub.add_response("get_cost_and_usage", first, asked.copy())
        stub.add_response("get_cost_and_usage", answer(("Amazon SageMaker", "2")), asked | {"NextPageToken": "2"})
        found = billed(client, RUN_TAG, "arn", START, START.replace(day=25))
    assert found.usd_by_service == {"Amazon SageMaker": 12.5, "Amazon S3": 1.0}
    assert found.usd == 13.5 and not found.problem


def test_a_tag_that_billing_does_not_count_by_is_a_problem_and_no_zero(client: Any) -> None:
    with Stubber(client) as stub:
        stub.add_response("get_cost_and_usage", answer())
        found = billed(client, RUN_TAG, "arn", START, START)
    assert "activate it among Billing's cost allocation tags" in found.problem


def test_a_refusal_names_the_permission(client: Any) -> None:
    with Stubber(client) as stub:
        stub.add_client_error("get_cost_and_usage", "AccessDeniedException")
        assert "ce:GetCostAndUsage" in billed(client, RUN_TAG, "arn", START, START).problem


def test_a_job_that_took_half_as_long_again_corrects_the_next_forecast(finished: Path, own_file: Path) -> None:
    settings, definition = load_settings(SET), definition_of("sd2_base")
    before = {line.step: line for line in forecast(settings, definition, {}).lines}
    run = run_of(Artifacts.load(finished / "artifacts"), {})
    write_corrections(corrections(run, settings, date(2026, 11, 29)))
    after = {line.step: line for line in forecast(settings, definition, {}).lines}
    assert after["Train"].hours == pytest.approx(1.5 * before["Train"].hours)
    assert after["Train"].rate_kind == "measured" and "by run" in after["Train"].rate
    assert after["Tune"] == before["Tune"]
    # What is already corrected is corrected by the whole factor again, not by what is left.
    again = run_of(with_forecast(settings, Artifacts.load(finished / "artifacts")), {})
    factors = {one.program: one.hours_factor for one in corrections(again, settings, date(2026, 11, 30))}
    assert factors["train"] == pytest.approx(1.5)


def test_a_job_that_did_something_else_corrects_nothing(finished: Path) -> None:
    run = run_of(Artifacts.load(finished / "artifacts"), {})
    for line in run.artifacts.forecast["lines"]:  # type: ignore[index]
        line["hours"] *= 100
    with pytest.raises(CostError, match="look at its rows and samples first"):
        list(corrections(run, load_settings(SET), date(2026, 11, 29)))


def test_a_newer_run_takes_an_older_ones_place_and_leaves_the_others(own_file: Path) -> None:
    def of(program: str, factor: float) -> Correction:
        fields = {"instance_type": "ml.p5.48xlarge", "model": "Stable Diffusion 2", "run": "a"}
        return Correction(program=program, hours_factor=factor, date=date(2026, 11, 29), **fields)

    write_corrections([of("train", 1.1), of("encode", 0.9)])
    write_corrections([of("train", 1.2)])
    assert {one.program: one.hours_factor for one in load_corrections().values()} == {"train": 1.2, "encode": 0.9}


def test_a_file_that_cannot_be_read_is_named(own_file: Path) -> None:
    own_file.write_text("- {program: train}\n")
    with pytest.raises(CostError, match=str(own_file)):
        load_corrections()


def test_the_command_shows_forecast_beside_bill_and_keeps_what_it_learnt(
    finished: Path, own_file: Path, monkeypatch: pytest.MonkeyPatch, client: Any
) -> None:
    monkeypatch.setattr("pipeline_definition.commands.cost.Target.client", lambda self, service: client)
    with Stubber(client) as stub:
        stub.add_response("get_cost_and_usage", answer(("Amazon SageMaker", "12")))
        words = ["cost", "actual", str(finished), "--params", str(SET), "--correct"]
        done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    for part in ("dollars, forecast", "$12.00", "hours x 1.50 from now on"):
        assert part in done.output
    assert load_corrections()


def test_a_run_on_this_machine_goes_the_same_way_and_says_that_nothing_was_billed(tmp_path: Path) -> None:
    example_runs.full_run(tmp_path / "run" / "artifacts")
    words = ["cost", "actual", str(tmp_path / "run"), "--params", "params/local.yaml"]
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert done.exit_code == 0 and "nothing was billed" in done.output
    assert not corrected.CORRECTIONS_FILE.exists()
