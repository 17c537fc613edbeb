"""Costs, thresholds and states: the arithmetic behind the page."""

from collections.abc import Callable
from typing import Any

import pytest

from pipeline_definition.models.gate import Metric, Threshold, metric, thresholds
from pipeline_definition.report.data import bucket_rows, fates
from pipeline_definition.report.headline import tiles, verdict
from pipeline_definition.report.run import Cost, Run, job_cost, step_cost
from pipeline_definition.report.training import time_parts
from pipeline_definition.report.tuning import best_name
from tests.pipeline_definition.definitions import definition_of
from tests.pipeline_definition.report.example_runs import TUNING, changed

View = Callable[..., Run]
TWO_HOSTS = [{"instance_type": "ml.p4d.24xlarge", "instance_count": 2}]


def test_a_job_costs_what_all_its_hosts_cost_for_the_seconds_that_are_billed() -> None:
    job = {"hosts": TWO_HOSTS, "seconds": 7200, "billable_seconds": 3600}
    assert job_cost(job, {"ml.p4d.24xlarge": 24.01}) == Cost(2.0, 48.02)


def test_hours_without_a_price_are_kept_apart() -> None:
    mixed = [*TWO_HOSTS, {"instance_type": "ml.g5.xlarge", "instance_count": 3}]
    cost = job_cost({"hosts": mixed, "seconds": 3600}, {"ml.g5.xlarge": 1.0})
    assert (cost.instance_hours, cost.usd, cost.unpriced) == (5.0, 3.0, frozenset({"ml.p4d.24xlarge"}))
    assert not cost.is_known


def test_a_cached_step_and_a_step_without_a_job_cost_nothing() -> None:
    job = {"hosts": TWO_HOSTS, "seconds": 3600, "kind": "TrainingJob"}
    assert step_cost({"job": job, "cached": True}, None, {}) == Cost()
    assert step_cost({"job": None}, None, {}) == Cost()


def test_a_tuning_step_costs_the_sum_of_its_trials() -> None:
    trials = {"trials": [{"hosts": TWO_HOSTS, "seconds": 1800}, {"hosts": TWO_HOSTS, "seconds": 3600}]}
    job = {"kind": "TuningJob", "hosts": TWO_HOSTS, "seconds": 999_999}
    assert step_cost({"job": job}, trials, {"ml.p4d.24xlarge": 10.0}) == Cost(3.0, 30.0)


def test_the_gate_is_read_from_the_definition_and_the_parameters_of_the_run() -> None:
    found = thresholds(definition_of("local"), {"MaxFid": 12.5, "MinClipScore": 0.7})
    assert found == {
        "fid": Threshold("fid", "at most", 12.5),
        "clip_score": Threshold("clip_score", "at least", 0.7),
    }


@pytest.mark.parametrize(
    ("sign", "passing", "missing"),
    [
        ("at most", (5.0, 4.9), (5.1,)),
        ("below", (4.9,), (5.0,)),
        ("at least", (5.0, 5.1), (4.9,)),
        ("above", (5.1,), (5.0,)),
    ],
)
def test_thresholds_include_their_limit_where_the_gate_does(
    sign: str, passing: tuple[float, ...], missing: tuple[float, ...]
) -> None:
    threshold = Threshold("fid", sign, 5.0)
    assert all(threshold.is_met_by(Metric(value)) for value in passing)
    assert not any(threshold.is_met_by(Metric(value)) for value in missing)


def test_a_margin_is_judged_on_the_end_of_the_interval() -> None:
    threshold = Threshold("fid_above_pretrained", "at most", 0.5, part="high")
    entries = {"sure": {"value": 0.2, "low": 0.0, "high": 0.4}, "unsure": {"value": 0.2, "low": -1.0, "high": 1.4}}
    measured = {name: metric({"metrics": entries}, name) for name in entries}
    assert [threshold.is_met_by(found) for found in measured.values() if found] == [True, False]
    alone = metric({"metrics": {"x": {"value": 0.2}}}, "x")
    assert alone is not None and not threshold.is_met_by(alone)


@pytest.mark.parametrize("metrics", [None, {}, {"metrics": None}, {"metrics": {"fid": 9.1}}, {"metrics": {"fid": {}}}])
def test_a_metric_that_is_not_as_expected_is_none(metrics: Any) -> None:
    assert metric(metrics, "fid") is None


@pytest.mark.parametrize(
    ("name", "kind", "title"),
    [
        ("full", "passed", "Passed the quality gate"),
        ("missed", "failed", "Missed the quality gate"),
        ("broken", "failed", "Failed at Train"),
    ],
)
def test_the_verdict(view_of: View, name: str, kind: str, title: str) -> None:
    found = verdict(view_of(name))
    assert (found.kind, found.title) == (kind, title)


def test_states_tell_a_branch_that_was_not_taken_from_a_step_that_was_not_reached(view_of: View) -> None:
    missed = {step.name: step.state for step in view_of("missed").steps}
    assert (missed["Register"], missed["Endpoint"], missed["GateFailed"]) == ("not taken", "not taken", "failed")
    broken = {step.name: step.state for step in view_of("broken").steps}
    assert (broken["Evaluate"], broken["Endpoint"], broken["GateFailed"]) == ("not reached",) * 3


def test_tiles_say_which_number_missed(view_of: View) -> None:
    assert [(tile.label, tile.passed) for tile in tiles(view_of("missed"))] == [
        ("FID", False),
        ("CLIP score", True),
        ("Speed", None),
        ("Cost", None),
    ]


def test_without_a_training_log_the_time_stands_for_the_speed(view_of: View) -> None:
    assert [tile.label for tile in tiles(view_of("broken"))] == ["Time", "Cost"]


def test_where_the_time_went_is_added_up_over_the_log(view_of: View) -> None:
    assert time_parts(view_of("full")) == pytest.approx(
        {"compute": 80 * 2.01, "waiting for data": 80 * 0.04, "communication": 80 * 0.33}
    )


def test_causes_are_ordered_by_rows_and_empty_ones_left_out() -> None:
    assert list(fates({"failed": {"timeout": 2, "http_404": 9, "corrupt": 0}}, "failed").items()) == [
        ("http 404", 9),
        ("timeout", 2),
    ]


def test_the_best_trial_is_found_by_the_objective_where_it_is_not_named() -> None:
    trials = changed(TUNING, best_trial=None)
    assert best_name(trials) == "tune-job-002"
    assert best_name({**trials, "objective": {"type": "Maximize"}}) == "tune-job-001"
    assert best_name({}) is None


def test_every_shape_of_the_pictures_is_a_row_and_squares_have_none() -> None:
    counts = {"train": 1200, "heldout": 7}
    assert bucket_rows({"buckets": [{"size_px": [48, 80], "counts": counts}]}) == [("80 × 48", "1,200", "7")]
    for garbled in ({}, {"buckets": 3}, {"buckets": [1, {}, {"size_px": [1], "counts": {}}]}):
        assert bucket_rows(garbled) == []
