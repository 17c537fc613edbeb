"""The schedule over hosts that are none, with a clock of its own."""

import contextlib
import heapq
import random
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steps.data.shards.host_health import MAX_BAD_OF_PROVEN, PROBE_AFTER_S, HostHealth
from steps.data.shards.schedule import Schedule
from steps.data.shards.shards_artifact import VerifiedShard
from steps.data.tables.url_table import TableSlice
from steps.errors import StepError

ROWS = 100
PART_S = 100.0


def slices(count: int) -> Iterator[TableSlice]:
    for index in range(count):
        yield TableSlice(index, index * ROWS, ["u"] * ROWS, ["c"] * ROWS)


def shard(index: int, unanswered: int, cause: str = "no_address") -> VerifiedShard:
    failed = {cause: unanswered} if unanswered else {}
    return VerifiedShard(name=f"{index}", rows=ROWS, samples=ROWS - unanswered, bytes=1, sha256="", failed=failed)


@dataclass
class World:
    """A job: some hosts have no DNS from one time to another, some rows are gone, some hosts hang once."""

    hosts: int
    parts: int
    sick: dict[str, tuple[float, float]] = field(default_factory=dict)
    gone: Collection[int] = ()
    hang: tuple[str, ...] = ()
    places: int = 1
    is_retry: bool = False
    now_s: float = 0.0
    made: list[tuple[str, int]] = field(default_factory=list)
    kept: dict[int, VerifiedShard] = field(default_factory=dict)

    def run(self, seed: int = 0) -> "World":
        rng, names = random.Random(seed), [f"algo-{number + 1}" for number in range(self.hosts)]
        self.health = HostHealth(names)
        schedule = Schedule(slices(self.parts), self.health, 10 * PART_S, self.is_retry)
        events: list[tuple[float, int, str, TableSlice, VerifiedShard]] = []
        hang, free = set(self.hang), dict.fromkeys(names, self.places)
        while not schedule.is_finished:
            assert self.now_s < 1e6, f"nothing is left to wait for: {self.made[-10:]}"
            assert len(self.made) <= 2 * (self.parts + MAX_BAD_OF_PROVEN * self.hosts), self.made[-10:]
            for name in names:
                while free[name] and (task := schedule.next_for(name, self.now_s)):
                    free[name] -= 1
                    self.made.append((name, task.index))
                    start_s, end_s = self.sick.get(name, (0.0, 0.0))
                    is_sick = start_s <= self.now_s < end_s
                    took_s = 1.0 if is_sick else rng.gauss(PART_S, PART_S / 20)
                    if name in hang:
                        hang.remove(name)
                        took_s = float("inf")
                    lost = ROWS if is_sick or task.index in self.gone else sum(rng.random() < 0.2 for _ in range(ROWS))
                    outcome = shard(task.index, lost)
                    heapq.heappush(events, (self.now_s + took_s, len(self.made), name, task, outcome))
            self.now_s = min(self.now_s + 10.0, events[0][0]) if events else self.now_s + 10.0
            for name, task in schedule.overdue(self.now_s):
                events = [one for one in events if one[2:4] != (name, task)]
                heapq.heapify(events)
                free[name] += 1
                schedule.done(name, task, "ended", self.now_s)
            while events and events[0][0] <= self.now_s:
                _, _, name, task, outcome = heapq.heappop(events)
                free[name] += 1
                if (found := schedule.done(name, task, outcome, self.now_s)) is not None:
                    assert task.index not in self.kept
                    self.kept[task.index] = found
        return self

    @property
    def lost(self) -> int:
        return sum(one.failed.get("no_address", 0) for one in self.kept.values())


FOREVER = (0.0, float("inf"))


def test_a_host_that_answers_nothing_costs_no_row_and_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    world = World(3, 60, sick={"algo-3": FOREVER}).run()
    assert len(world.kept) == 60 and world.lost < 0.25 * 60 * ROWS
    assert world.health.sick == {"algo-3": "no_address"}
    assert "WARNING host algo-3 is set aside: no_address 100 rows" in capsys.readouterr().out
    assert len([name for name, _ in world.made if name == "algo-3"]) <= 1 + world.now_s / PROBE_AFTER_S


def test_a_host_that_falls_sick_comes_back_once_it_is_well(capsys: pytest.CaptureFixture[str]) -> None:
    world = World(3, 60, sick={"algo-2": (300.0, 700.0)}).run()
    assert len(world.kept) == 60 and world.lost < 0.25 * 60 * ROWS and world.health.sick == {"algo-2": "no_address"}
    assert "host algo-2 is back" in capsys.readouterr().out


def test_rows_that_no_host_gets_are_what_they_are_and_no_host_is_blamed() -> None:
    world = World(3, 60, gone=range(10, 30)).run()
    assert all(world.kept[index].samples == 0 for index in range(10, 30)) and world.health.sick == {}


@pytest.mark.parametrize("hosts", [1, 2, 16])
def test_where_no_host_gets_an_answer_the_step_ends_early_and_keeps_nothing(hosts: int) -> None:
    world = World(hosts, 1000, sick={f"algo-{number + 1}": FOREVER for number in range(hosts)}, places=4)
    with pytest.raises(StepError, match=r"on any of algo-1.*most frequent: no_address .*NAT gateway"):
        world.run()
    assert not world.kept and len(world.made) <= hosts * (3 + 4)


def test_a_set_that_is_gone_goes_round_the_hosts_and_is_refused_soon() -> None:
    world = World(4, 1, gone=(0,), places=3)
    with pytest.raises(StepError, match="hardly a row gets an answer on any of algo-1, algo-2, algo-3, algo-4"):
        world.run()
    assert Counter(name for name, _ in world.made) == {f"algo-{number}": 3 for number in range(1, 5)}


def test_the_only_host_may_have_rows_that_are_gone() -> None:
    world = World(1, 20, gone=(0, 7, 19)).run()
    assert len(world.kept) == 20 and world.health.sick == {}


def test_the_only_host_is_waited_for_while_nothing_answers_it() -> None:
    world = World(1, 20, sick={"algo-1": (300.0, 302.5)}).run()
    assert len(world.kept) == 20 and world.lost < 0.25 * 20 * ROWS


def test_rows_that_failed_before_may_all_fail_again() -> None:
    assert len(World(2, 6, gone=range(6), is_retry=True).run().kept) == 6


def test_a_hung_shard_costs_at_most_twice_the_median() -> None:
    well, hung = World(3, 30).run(), World(3, 30, hang=("algo-2",)).run()
    assert sorted(hung.kept) == list(range(30)) and hung.health.sick == {}
    assert hung.now_s - well.now_s <= 2.1 * PART_S


def test_a_lost_hosts_shards_are_made_by_the_others() -> None:
    schedule = Schedule(slices(3), HostHealth(["algo-1", "algo-2"]), 1000.0)
    first, other = schedule.next_for("algo-1", 0.0), schedule.next_for("algo-2", 0.0)
    assert first is not None and other is not None
    schedule.lost("algo-1")
    assert schedule.next_for("algo-1", 1.0) is None
    assert schedule.next_for("algo-2", 1.0) == first
    with pytest.raises(StepError, match="none is left"):
        schedule.lost("algo-2")


@settings(deadline=None, max_examples=25)
@given(
    hosts=st.integers(2, 6),
    places=st.integers(1, 3),
    parts=st.integers(1, 20),
    sick=st.booleans(),
    from_s=st.integers(0, 500),
    gone=st.sets(st.integers(0, 19), max_size=3),
    hang=st.booleans(),
    seed=st.integers(0, 99),
)
def test_while_a_host_is_well_each_shard_is_kept_once_and_no_sick_hosts_word_is_taken(
    hosts: int, places: int, parts: int, sick: bool, from_s: int, gone: set[int], hang: bool, seed: int
) -> None:
    ill = {"algo-2": (float(from_s), float("inf"))} if sick else {}
    world = World(hosts, parts, sick=ill, gone=gone, hang=("algo-1",) if hang else (), places=places)
    try:
        world.run(seed)
    except StepError:
        # So few shards that all of what is left is gone: it is refused, not kept.
        assert gone
    assert all(one.samples > 0 for index, one in world.kept.items() if index not in gone)


@settings(deadline=None, max_examples=50)
@given(
    hosts=st.integers(1, 6),
    places=st.integers(1, 3),
    gone=st.lists(st.booleans(), min_size=1, max_size=20),
    sick=st.booleans(),
    hang=st.booleans(),
    seed=st.integers(0, 99),
)
def test_whatever_is_gone_the_schedule_ends_and_makes_few_shards_twice(
    hosts: int, places: int, gone: list[bool], sick: bool, hang: bool, seed: int
) -> None:
    ill, hung = {"algo-2": (100.0, float("inf"))} if sick else {}, ("algo-1",) if hang else ()
    lost = {index for index, is_gone in enumerate(gone) if is_gone}
    with contextlib.suppress(StepError):
        World(hosts, len(gone), sick=ill, gone=lost, hang=hung, places=places).run(seed)
