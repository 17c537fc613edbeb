"""The commands `cost forecast`, `cost prices refresh` and `plan` as they are typed."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from params.settings import Settings
from pipeline_definition.cli import app
from pipeline_definition.commands import cost
from pipeline_definition.cost.prices import PRICES_FILE, load_prices
from pipeline_definition.session import Target
from tests.pipeline_definition.cost.samples import definition, settings
from tests.pipeline_definition.cost.test_price_list import PriceList, sagemaker


@pytest.fixture(autouse=True)
def built_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def built(params: Path) -> tuple[Settings, dict[str, Any]]:
        return settings(), definition()

    monkeypatch.setattr(cost, "_definition", built)


def run(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, words)
    return result.exit_code, result.output


def test_the_forecast_answers_people_and_programs_alike() -> None:
    status, text = run("cost", "forecast", "--json", "--set", "TrainingInstanceCount=2")
    assert status == 0
    said = json.loads(text)
    assert "2 x ml.p4d.24xlarge" in next(line["what"] for line in said["steps"] if line["step"] == "Train")
    status, text = run("cost", "forecast")
    assert status == 0
    assert "the run" in text and "MosaicML" in text


def test_a_forecast_that_cannot_be_made_ends_with_one_line() -> None:
    status, text = run("cost", "forecast", "--set", "TrainingInstanceType=ml.g7.4xlarge")
    assert status == 2
    assert "ml.g7.4xlarge" in text and "Traceback" not in text


def test_a_plan_that_is_met_is_status_0_and_writes_its_page(tmp_path: Path) -> None:
    page = tmp_path / "plan.html"
    status, text = run("plan", "--deadline", "10d", "--budget", "5000", "--json", "--out", str(page))
    assert (status, json.loads(text)["met"]) == (0, True)
    assert "<svg" in page.read_text(encoding="utf-8")


def test_several_sets_are_planned_and_the_cheapest_that_meets_both_limits_is_the_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.undo()
    sets = ("--params", "sd2_base", "--params", "octank_100gb", "--params", "sd3_budget")
    status, text = run("plan", "--deadline", "10d", "--budget", "10k", *sets)
    ranked = [line.split()[:2] for line in text.splitlines() if line.startswith(("sd2_base", "octank_", "sd3_"))]
    assert (status, ranked) == (0, [["octank_100gb", "yes"], ["sd3_budget", "yes"], ["sd2_base", "no"]])
    assert "sd-pipeline start --params octank_100gb" in text


def test_a_plan_that_nothing_meets_is_status_1_with_the_nearest() -> None:
    status, text = run("plan", "--deadline", "1h", "--budget", "10")
    assert status == 1
    assert "nearest is" in text.replace("\n", " ")


def test_a_savings_plan_counts_only_when_it_is_said_to_be_there() -> None:
    def ways(*more: str) -> set[str]:
        hosts = ("--set", "TrainingInstanceType=ml.p4d.24xlarge")
        _, text = run("plan", "--deadline", "10d", "--budget", "5000", "--json", *hosts, *more)
        return {option["trainings"][0]["purchase"] for option in json.loads(text)["frontier"]}

    assert ways() <= {"on_demand", "spot"}
    assert "savings_plan" in ways("--savings-plan")


def test_a_refresh_writes_the_file_that_it_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = Path(shutil.copy(PRICES_FILE, tmp_path / "prices.yaml"))
    answers = PriceList({"AmazonSageMaker": [sagemaker("ml.p4d.24xlarge", 20.0)]})
    monkeypatch.setattr(Target, "client", lambda _target, _service: answers)
    status, text = run("cost", "prices", "refresh", "--file", str(file))
    assert status == 0
    assert "ml.p4d.24xlarge: 25.251286 -> 20" in text
    assert "usd: 20.0" in file.read_text(encoding="utf-8")


def test_a_price_is_written_with_its_source_and_the_forecast_takes_it(tmp_path: Path) -> None:
    file = tmp_path / "prices.yaml"
    file.write_bytes(PRICES_FILE.read_bytes())
    words = ("cost", "prices", "set", "ml.g7.4xlarge", "3.5", "--source", "our account team", "--file", str(file))
    status, text = run(*words)
    assert status == 0 and "ml.g7.4xlarge on demand: $3.5" in text
    assert load_prices(file).instance_hour_usd("ml.g7.4xlarge") == 3.5
    assert file.read_text(encoding="utf-8").startswith("# What AWS charges")


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("set", "ml.g7.5xlarge", "3.5", "--source", "x"), "did you mean ml.g7"),
        (
            ("set", "ml.g7.4xlarge", "3.5", "--source", "x", "--way", "reserved"),
            "'reserved' is not one of 'on_demand', 'spot'",
        ),
        (("plan", "arn:aws:sagemaker:eu-west-1:123456789012:training-plan/spring"), "a training plan in us-east-1"),
    ],
)
def test_a_price_that_cannot_be_written_ends_with_one_line(words: tuple[str, ...], named: str) -> None:
    status, text = run("cost", "prices", *words)
    assert status == 2 and named in text and "Traceback" not in text
