"""A budget is kept before anything starts, and Train is told what it may spend."""

from pathlib import Path
from typing import Any

import pytest

from params.settings import Settings, load_settings, parse_settings
from pipeline_definition.checks.budget import budget_findings, filled_in
from pipeline_definition.checks.findings import Finding
from pipeline_definition.cost.forecast import forecast
from pipeline_definition.cost.host_hours import priced, training_price_usd
from pipeline_definition.cost.prices import load_prices
from tests.pipeline_definition.definitions import all_steps, defaults_of, definition_of


def settings() -> Settings:
    return load_settings(Path("params/sd2_base.yaml"))


def definition() -> dict[str, Any]:
    return definition_of("sd2_base")


def price_of(settings: Settings) -> float:
    return training_price_usd(settings, settings.phases[0])


def needed_usd(**changes: str) -> float:
    return forecast(settings(), definition(), changes).usd("on_demand")


def found(**changes: str) -> dict[str, Finding]:
    return {finding.parameter: finding for finding in budget_findings(settings(), definition(), changes)}


def test_without_a_budget_nothing_is_asked() -> None:
    assert defaults_of(definition())["BudgetUsd"] == 0.0
    assert found() == {}
    assert filled_in(settings(), definition(), {"MaxFid": "20"}) == {"MaxFid": "20"}


def test_a_forecast_above_the_budget_is_refused_and_the_named_budget_is_accepted() -> None:
    refused = found(BudgetUsd="1000")["BudgetUsd"]
    assert refused.blocking
    assert "more than the budget of $1,000" in refused.problem
    enough = refused.fix.split("raise it to ")[1].split(",")[0]
    assert int(enough) == -int(-needed_usd() // 1)
    assert found(BudgetUsd=enough) == {}
    assert found(BudgetUsd=str(int(enough) - 1)).keys() == {"BudgetUsd"}


def test_a_start_tells_train_what_the_other_steps_take() -> None:
    filled = filled_in(settings(), definition(), {"BudgetUsd": "1e6"})
    lines = {line.step: line.usd["on_demand"] or 0.0 for line in forecast(settings(), definition(), {}).lines}
    assert float(filled["OtherStepsUsd"]) == pytest.approx(sum(lines.values()) - lines["Train"], abs=0.01)
    second = float(filled["OtherStepsUsdPhase2"])
    assert second == pytest.approx(sum(lines.values()) - lines["TrainPhase2"], abs=0.01)
    assert filled_in(settings(), definition(), {"BudgetUsd": "1e6", "OtherStepsUsd": "7"})["OtherStepsUsd"] == "7"


def test_another_instance_type_comes_with_its_price() -> None:
    filled = filled_in(settings(), definition(), {"TrainingInstanceType": "ml.p5.48xlarge"})
    assert float(filled["TrainingInstanceHourUsd"]) == load_prices().instance_hour_usd("ml.p5.48xlarge")


def test_the_price_of_train_is_the_sets_own_the_files_or_none() -> None:
    assert price_of(settings()) == load_prices().instance_hour_usd(settings().train.job.instance_type)
    own = parse_settings("train: {instance_hour_usd: 12.5}", "test")
    assert price_of(own) == 12.5
    spot = parse_settings("train: {spot: true}", "test")
    assert price_of(spot) == load_prices().in_region("us-east-1", "ml.p4d.24xlarge", "spot")
    elsewhere = parse_settings("account: {region: eu-west-1}", "test")
    assert price_of(elsewhere) == 0.0
    assert price_of(load_settings(Path("params/local.yaml"))) == 0.0


def test_prices_are_filled_in_for_each_phase_and_the_sets_own_stay() -> None:
    listed = load_prices().instance_hour_usd
    filled = priced(settings())
    assert [phase.train.instance_hour_usd for phase in filled.phases] == [listed("ml.p4d.24xlarge")] * 2
    assert priced(filled) == filled
    text = "train: {instance_hour_usd: 12.5}\nphase_2: {train: {instance_type: %s}}"
    own = priced(parse_settings(text % "ml.p5.48xlarge", "test"))
    assert [phase.train.instance_hour_usd for phase in own.phases] == [12.5, listed("ml.p5.48xlarge")]
    same = priced(parse_settings(text % "ml.p4d.24xlarge", "test"))
    assert [phase.train.instance_hour_usd for phase in same.phases] == [12.5, 12.5]
    second = priced(parse_settings("phase_2: {instance_hour_usd: 7}", "test"))
    assert [phase.train.instance_hour_usd for phase in second.phases] == [listed("ml.p4d.24xlarge"), 7.0]
    laptop = load_settings(Path("params/local.yaml"))
    assert priced(laptop) is laptop


def test_a_price_that_is_missing_is_refused_and_one_that_differs_is_noted() -> None:
    missing = found(BudgetUsd="1e9", TrainingInstanceHourUsd="0")["TrainingInstanceHourUsd"]
    assert missing.blocking
    negotiated = found(BudgetUsd="1e9", TrainingInstanceHourUsd="9")["TrainingInstanceHourUsd"]
    assert not negotiated.blocking
    assert found(BudgetUsd="1e9", TrainingInstanceHourUsd=f"{price_of(settings()):.2f}") == {}


def test_a_run_without_a_forecast_has_no_budget() -> None:
    refused = found(BudgetUsd="1e9", TrainingInstanceType="ml.p4d.99xlarge")["BudgetUsd"]
    assert refused.blocking
    assert "no forecast" in refused.problem


def test_other_steps_that_take_it_all_are_refused() -> None:
    assert "leave nothing" in found(BudgetUsd="1e9", OtherStepsUsd="2e9")["OtherStepsUsd"].problem


def test_train_gets_the_budget_and_a_trial_does_not() -> None:
    steps = all_steps(definition())
    train = steps["Train"]["Arguments"]["HyperParameters"]
    for name, parameter in (
        ("budget_usd", "BudgetUsd"),
        ("other_steps_usd", "OtherStepsUsd"),
        ("instance_hour_usd", "TrainingInstanceHourUsd"),
    ):
        assert train[name] == {"Std:Join": {"On": "", "Values": [{"Get": f"Parameters.{parameter}"}]}}
        assert name not in steps["Tune"]["Arguments"]["TrainingJobDefinition"]["StaticHyperParameters"]
