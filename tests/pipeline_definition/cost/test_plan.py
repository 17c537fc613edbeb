"""The plan: the cheapest that meets both limits, the frontier, and the answer when nothing does."""

import functools
import itertools
import json
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from params.settings import load_settings
from pipeline_definition.cost import plan as planning
from pipeline_definition.cost.forecast import forecast, wall_hours
from pipeline_definition.cost.frontier import Way, frontier, in_turn, side_by_side
from pipeline_definition.cost.limits import parse_days, parse_usd
from pipeline_definition.cost.plan import Plan, plan
from pipeline_definition.cost.plan_page import (
    option_table,
    plan_document,
    plan_json,
    set_lines,
    start_line,
    step_table,
    verdict,
)
from pipeline_definition.cost.training import CostError
from pipeline_definition.definition.pipeline import build_definition
from pipeline_definition.pages.html import to_html
from tests.pipeline_definition.cost.samples import changed, definition, settings
from tests.pipeline_definition.definitions import definition_of

NOW = datetime(2026, 11, 26, 18, 0)  # a Thursday
ANY_WAYS = st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=1, max_size=8).map(
    lambda pairs: [Way(float(hours), float(usd), ()) for hours, usd in pairs]
)


@functools.cache
def planned(days: float, usd: float, training_only: bool = False) -> Plan:
    parameters = {"TrainingSamples": "1126400000"}
    return plan(settings(), definition(), parameters, days, usd, training_only=training_only)


@functools.cache
def sd2_base(deadline_days: float = 7.0, *pinned: str) -> Plan:
    parameters = dict(item.split("=") for item in pinned)
    return plan(load_settings(Path("params/sd2_base.yaml")), definition_of("sd2_base"), parameters, deadline_days, 5e6)


def trained_on(option: Any) -> tuple[str, int]:
    return option.trainings[0].instance_type, option.trainings[0].count


def test_the_choice_meets_both_and_nothing_cheaper_does() -> None:
    found = planned(5.0, 12_000.0)
    assert found.best is not None
    assert found.best.days <= 5.0 and found.best.usd <= 12_000.0
    assert not [option for option in found.options if found.meets(option) and option.usd < found.best.usd]


def test_sd2_from_scratch_in_a_week_costs_no_more_than_the_brute_force_grid_found() -> None:
    """$133,216 by trying counts of Encode, EncodePhase2 and Download by hand, and Train's hosts by the plan."""
    found = sd2_base()
    assert found.best is not None and found.best.usd <= 133_216
    assert found.bottleneck(found.best).step == "TrainPhase2"


@pytest.mark.parametrize("purchase", ["on_demand", "spot"])
def test_the_choice_is_the_best_of_every_combination_on_a_small_problem(
    purchase: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "MAX_HOSTS", 3)  # and the set's own counts
    monkeypatch.setattr(planning, "MAX_TRAINING_HOSTS", 4)
    two, pinned = load_settings(Path("params/sd2_base.yaml")), {"EvaluateInstanceCount": "1"}
    types = ("DownloadInstanceType", "EncodeInstanceType", "EncodePhase2InstanceType", "EvaluateInstanceType")
    defaults = {item["Name"]: item.get("DefaultValue") for item in definition_of("sd2_base")["Parameters"]}
    pinned |= {name: str(defaults[name]) for name in (*types, "TrainingInstanceType", "TrainingPhase2InstanceType")}
    names = ("DownloadInstanceCount", "EncodeInstanceCount", "EncodePhase2InstanceCount")
    names += ("TrainingInstanceCount", "TrainingPhase2InstanceCount")
    long = two.model_dump(exclude_unset=True)
    for section in (long["download"], long["encode"]):
        section["job"] |= {"max_runtime_s": 5_000_000}
    long["phases"][0]["encode"] |= {"max_runtime_s": 50_000_000}
    two = type(two).model_validate(long)
    whole = json.loads(build_definition(two))
    ways = []
    for counts in itertools.product((1, 2, 3, 16), (1, 2, 3, 16), (1, 2, 3, 24), (1, 2, 4, 8), (1, 2, 4, 8)):
        bill = forecast(two, whole, pinned | dict(zip(names, map(str, counts), strict=True)))
        slower = 1.15 if purchase == "spot" else 1.0
        lines = [replace(line, hours=line.hours * (slower if "Train" in line.step else 1.0)) for line in bill.lines]
        hours = wall_hours(bill.workload, lines)
        lasting = sum(
            line.usd["on_demand"] or 0.0 for line in bill.lines if line.step in ("FSx for Lustre", "Private endpoints")
        )
        ways.append((hours / 24, bill.usd(purchase) + lasting * (hours / bill.hours - 1.0)))
    for share in (0.1, 0.5, 0.9):
        deadline = sorted(days for days, _ in ways)[round(share * len(ways))]
        found = plan(two, whole, pinned, deadline, 5e6, (purchase,)).best
        assert found is not None
        assert found.usd == pytest.approx(min(usd for days, usd in ways if days <= deadline), rel=1e-6)


def test_a_parameter_that_is_set_stays_as_it_is() -> None:
    found = sd2_base(9.0, "EncodeInstanceCount=48", "TrainingInstanceType=ml.p4d.24xlarge")
    for option in found.options:
        by_step = {hosts.step: hosts for hosts in option.hosts}
        assert by_step["Encode"].count == 48 and by_step["Train"].instance_type == "ml.p4d.24xlarge"


def test_a_training_plan_is_among_the_options_where_it_is_said_to_be_there() -> None:
    found = plan(
        load_settings(Path("params/sd2_base.yaml")), definition_of("sd2_base"), {}, 7.0, 5e6, ("training_plan",)
    )
    assert {hosts.purchase for option in found.options for hosts in option.trainings} == {"training_plan"}


def test_the_start_line_sets_what_differs_and_forecasts_what_the_plan_says() -> None:
    found = sd2_base()
    values = {item["Name"]: item.get("DefaultValue") for item in definition_of("sd2_base")["Parameters"]}
    words = start_line(found, "params/sd2_base.yaml", values).split(" --set ")
    assert words[0] == "sd-pipeline start --params params/sd2_base.yaml"
    assert "in the parameter set: train.spot: true" in set_lines(found, is_spot=False)
    changes = dict(word.split("=") for word in words[1:])
    bill = forecast(load_settings(Path("params/sd2_base.yaml")), definition_of("sd2_base"), changes)
    # The file system is there for spot's waiting, too: that is all that the two differ by.
    assert bill.usd("spot") == pytest.approx(found.choice.usd, rel=0.05)


def test_the_runner_up_trains_on_something_else_and_meets_both_too() -> None:
    found = sd2_base()
    assert found.runner_up is not None and found.meets(found.runner_up)
    assert trained_on(found.runner_up)[0] != trained_on(found.choice)[0]
    assert found.runner_up.usd >= found.choice.usd


def test_the_verdict_names_the_bottleneck_its_parameter_and_what_more_would_buy() -> None:
    said = verdict(sd2_base())
    for part in ("the runner-up is", "TrainingPhase2InstanceCount sets its hosts", "$1,000 more would save", "more "):
        assert part in said


@given(ANY_WAYS, ANY_WAYS)
def test_a_frontier_loses_no_way_that_is_best_for_some_deadline(left: list[Way], right: list[Way]) -> None:
    for combine, hours_of in ((in_turn, float.__add__), (side_by_side, max)):
        kept = in_turn((left, right)) if combine is in_turn else side_by_side(left, right)
        every = [(hours_of(a.hours, b.hours), a.usd + b.usd) for a in left for b in right]
        for deadline in range(1, 82):
            best = min((usd for hours, usd in every if hours <= deadline), default=None)
            found = min((way.usd for way in kept if way.hours <= deadline), default=None)
            assert best == found


def test_a_frontier_begins_with_the_cheapest_and_every_further_way_is_faster() -> None:
    ways = [Way(3.0, 1.0, ()), Way(2.0, 2.0, ()), Way(2.5, 2.5, ()), Way(1.0, 9.0, ())]
    assert [way.hours for way in frontier(ways)] == [3.0, 2.0, 1.0]


def test_a_larger_model_has_smaller_micro_batches_and_takes_longer() -> None:
    sizes, days = {}, {}
    for name in ("Stable Diffusion 2", "Stable Diffusion 3 Medium"):
        pinned = {"TrainingInstanceType": "ml.p5.48xlarge", "TrainingInstanceCount": "1"}
        found = plan(changed(data={"model": name}), definition(), pinned, 30.0, 1e6, ("on_demand",), training_only=True)
        sizes[name], days[name] = found.options[0].trainings[0].micro_batch_size, found.options[0].days
    assert sizes["Stable Diffusion 3 Medium"] < sizes["Stable Diffusion 2"]
    assert days["Stable Diffusion 3 Medium"] > 4 * days["Stable Diffusion 2"]


def test_a_tighter_deadline_never_costs_less() -> None:
    choices = [planned(days, 1e6).best for days in (2.0, 5.0, 20.0)]
    dollars = [choice.usd for choice in choices if choice]
    assert len(dollars) == 3
    assert dollars == sorted(dollars, reverse=True)


def test_no_option_beats_one_of_the_frontier_in_days_and_dollars() -> None:
    found = planned(5.0, 12_000.0)
    assert len(found.options) > 2
    for edge in found.options:
        assert not [o for o in found.options if o.days < edge.days and o.usd < edge.usd]


def test_every_option_divides_the_global_batch() -> None:
    assert {2048 % hosts.gpus for option in planned(5.0, 12_000.0).options for hosts in option.trainings} == {0}


def test_many_hosts_lose_some_of_their_speed() -> None:
    same = [option.trainings[0] for option in planned(5.0, 12_000.0, True).options]
    by_gpus = sorted(same, key=lambda hosts: hosts.gpus)
    assert by_gpus[0].efficiency == 1.0 > by_gpus[-1].efficiency


def test_when_nothing_meets_both_the_nearest_is_said_and_what_each_limit_allows() -> None:
    found = planned(3.0, 100.0)
    assert found.best is None
    assert verdict(found).startswith("nothing meets 3 days and $100: nearest is ")
    assert "within the deadline the cheapest is" in verdict(found)
    assert plan_json(found)["met"] is False


def test_the_page_draws_the_frontier_and_asks_for_nothing_outside() -> None:
    page = to_html(plan_document(planned(5.0, 12_000.0), "sd"))
    assert "<svg" in page and "meets both" in page
    assert "http://" not in page and "https://" not in page


def test_the_tables_have_the_choice_step_by_step_and_among_others() -> None:
    found = planned(5.0, 12_000.0)
    assert [row[0] for row in step_table(found).rows] == ["Download", "Encode", "Tune", "Train", "Evaluate"]
    assert [row[2] for row in option_table(found).rows].count("the choice") == 1


@pytest.mark.parametrize(
    ("text", "days"),
    [
        ("36h", 1.5),
        ("10d", 10.0),
        ("2w", 14.0),
        ("Thursday", 0.25),
        ("fri", 1.25),
        ("wednesday", 6.25),
        ("2026-12-01", 5.25),
    ],
)
def test_deadlines_are_read_in_hours_days_weeks_weekdays_and_dates(text: str, days: float) -> None:
    assert parse_days(text, NOW) == days


@pytest.mark.parametrize("text", ["", "10", "-1d", "0d", "ten days", "2026-11-25", "2026-13-01", "t"])
def test_a_deadline_that_is_none_is_named(text: str) -> None:
    with pytest.raises(CostError, match="--deadline"):
        parse_days(text, NOW)


@pytest.mark.parametrize(
    ("text", "usd"),
    [("40000", 40e3), ("$5,000,000", 5e6), ("5M", 5e6), ("1.5m", 1.5e6), ("40k USD", 40e3), ("40k EUR", 44e3)],
)
def test_budgets_are_read_as_people_write_them(text: str, usd: float) -> None:
    assert parse_usd(text, 1.1 if "EUR" in text else None) == pytest.approx(usd)


@pytest.mark.parametrize("text", ["", "0", "-5", "inf", "nan", "5 apples", "$40 EUR", "1e400"])
def test_a_budget_that_is_none_is_named(text: str) -> None:
    with pytest.raises(CostError, match="--budget"):
        parse_usd(text, 1.1)


def test_another_currency_asks_for_its_rate() -> None:
    with pytest.raises(CostError, match="--exchange-rate how many dollars one EUR is"):
        parse_usd("€40k")
