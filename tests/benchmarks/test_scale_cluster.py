"""A cluster of Download hosts that are none: what the real scheduling makes of sick, slow and dying ones."""

from argparse import Namespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.scale_cluster import FLAGS, SimulatedCluster, simulated


def asked(**changes: int) -> Namespace:
    return Namespace(**{name: default for name, (default, _) in FLAGS.items()} | {"shards": 800} | changes)


def line(hosts: int, **changes: int) -> dict[str, Any]:
    [only] = simulated([hosts], asked(**changes))["clusters"]
    return dict(only)


def test_hosts_that_are_well_lose_nothing_and_take_about_the_ideal_time() -> None:
    well = line(8, sick=0, stragglers=0, deaths=0, hangs=0)
    assert well["rows_lost_%"] == 0 and well["work_made_twice_%"] == 0 and well["set_aside"] == "none"
    assert 1 <= well["times_ideal"] < 1.3


def test_a_sick_host_is_named_and_costs_less_than_a_twentieth_of_the_rows() -> None:
    cluster = SimulatedCluster(16, asked())
    cluster.run()
    named = {host: cause for host, cause in cluster.health.sick.items() if host not in cluster.slow}
    assert {host for host, cause in named.items() if cause == "no_address"} == set(cluster.sick)
    assert line(16)["rows_lost_%"] < 5


def test_a_shard_that_hangs_ends_no_run() -> None:
    hung = line(8, sick=0, stragglers=0, deaths=0, hangs=3)
    assert hung["times_ideal"] < 2 and hung["rows_lost_%"] == 0 < hung["work_made_twice_%"]


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 99), st.integers(0, 1), st.integers(0, 2), st.integers(0, 2), st.integers(0, 2))
def test_every_row_is_fetched_whatever_happens_to_a_few_hosts(
    seed: int, sick: int, stragglers: int, deaths: int, hangs: int
) -> None:
    fate = line(8, shards=200, seed=seed, sick=sick, stragglers=stragglers, deaths=deaths, hangs=hangs)
    assert fate["rows_lost_%"] == pytest.approx(0)


def test_the_same_seed_is_the_same_run() -> None:
    assert line(8, seed=7, shards=300) == line(8, seed=7, shards=300) != line(8, seed=8, shards=300)
