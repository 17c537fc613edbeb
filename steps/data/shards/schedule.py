"""Who makes which shard next, what is to be made again, and what takes too long.

Pure: it knows no process, no network and no clock; whoever drives it says what time it is, in seconds.
`shard_pool` drives it with hosts, a simulation with hosts that are none:

    while not schedule.is_finished:
        for host with a free place: task = schedule.next_for(host, now_s)
        for what hosts say:         shard = schedule.done(host, task, outcome, now_s)
        for host, task in schedule.overdue(now_s): end it, and say so with done()
"""

from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from statistics import median
from typing import Final

from steps.data.shards.host_health import TOO_SLOW, HostHealth, unanswered
from steps.data.shards.shards_artifact import VerifiedShard, shard_stem
from steps.data.tables.url_table import TableSlice
from steps.errors import StepError

TRIES: Final = 3
OVERDUE: Final = 2.0
"""Medians that a shard may take; each time that it is begun again, twice as many."""
MEDIAN_OF: Final = 101
MIN_MEDIAN_OF: Final = 3
LEAST_DEADLINE_S: Final = 5.0
"""No median of tiny shards makes a hiccup of a busy host a hang."""
START_S: Final = 30.0
"""What a process may take to start after one that ended, on a busy host; seconds otherwise."""
MAX_SLOW: Final = 3
"""Shards of a host in a row that had to be ended: from then on they are counted against its health."""


@dataclass
class _Part:
    task: TableSlice
    makers: list[str] = field(default_factory=list)
    """Hosts that have made it, and are not believed, or were too slow."""
    is_doubted: bool = False
    """Whether few of its rows were answered on one of them."""
    failures: int = 0
    ended: int = 0
    """How often it took too long."""


@dataclass
class _Run:
    part: _Part
    host: str
    since_s: float
    start_s: float = 0.0
    """What it is given beside its deadline, for a process to start."""
    deadline_s: float = 0.0
    """What it was given when it was found to be overdue; 0: it is not."""


class Schedule:
    """The shards of one round of a download, over all hosts."""

    def __init__(self, tasks: Iterator[TableSlice], health: HostHealth, limit_s: float, is_retry: bool = False) -> None:
        """`limit_s` is the most that a shard may take in seconds, whatever the median.

        `is_retry`: all of these rows failed before, so that it proves nothing if they fail.
        """
        self._tasks, self._health, self._limit_s, self._is_retry = tasks, health, limit_s, is_retry
        self._again: deque[_Part] = deque()
        self._running: dict[int, _Run] = {}
        self._took_s: deque[float] = deque(maxlen=MEDIAN_OF)
        self._slow: Counter[str] = Counter()
        self._failures: Counter[str] = Counter()
        self._ahead: TableSlice | None = None
        health.begin_round()

    @property
    def is_finished(self) -> bool:
        """Whether every shard is made."""
        if self._ahead is None:
            self._ahead = next(self._tasks, None)
        return not (self._ahead or self._again or self._running)

    def next_for(self, host: str, now_s: float) -> TableSlice | None:
        """Return what a host with a free place is to make from now on, or None: nothing for now."""
        is_busy = any(run.host == host for run in self._running.values())
        if self.is_finished or not self._health.may_work(host, now_s, is_busy):
            return None
        part = self._part_for(host)
        if part is not None:
            is_new = self._failures[host] > 0
            self._failures[host] -= is_new
            self._running[part.task.index] = _Run(part, host, now_s, START_S * is_new)
        return part.task if part else None

    def done(self, host: str, task: TableSlice, outcome: VerifiedShard | str, now_s: float) -> VerifiedShard | None:
        """Take what a host made, or why there is none; return it where it counts, None where it is made again.

        Raises StepError where a shard fails again and again, or all hosts are sick.
        """
        run = self._running.pop(task.index, None)
        if run is None or run.host != host:
            raise ValueError(f"shard {task.index} is not being made on {host}")
        if isinstance(outcome, str):
            self._failed(run, outcome, now_s)
            return None
        self._slow[host] = 0
        if self._health.is_suspicious(host, outcome, self._is_retry):
            if not (run.part.is_doubted and self._health.is_sure(host, task.index)):
                run.part.is_doubted = True
                self._doubt(run, unanswered(outcome), now_s)
                return None
            for maker in run.part.makers:
                self._health.acquit(maker, task.index)
        else:
            self._took_s.append(now_s - run.since_s)
            self._health.clear(host, run.since_s)
            for maker in run.part.makers:
                self._health.set_aside(maker, task.index, now_s)
        self._health.accept(host, outcome)
        return outcome

    def overdue(self, now_s: float) -> list[tuple[str, TableSlice]]:
        """Return, once each, what takes too long and where: to be ended, and made again elsewhere."""
        found = []
        for run in self._running.values():
            deadline_s = self._deadline_s(run.part)
            if not run.deadline_s and now_s - run.since_s > deadline_s + run.start_s:
                run.deadline_s = deadline_s
                found.append((run.host, run.part.task))
        return found

    def lost(self, host: str) -> None:
        """Take note that a host is gone, and what it made with it. Raises StepError where it was the last one."""
        self._health.lose(host)
        for index in [index for index, run in self._running.items() if run.host == host]:
            self._again.append(self._running.pop(index).part)

    def _part_for(self, host: str) -> _Part | None:
        """Return rows that others could not make, then new ones; its own again only once every other had its turn."""
        hosts = self._health.working()
        fit = (one for one in self._again if one.makers.count(host) <= min(map(one.makers.count, hosts)))
        chosen = next(fit, None)
        # To a host in doubt, other rows say more.
        if self._ahead is not None and (chosen is None or not self._health.is_well(host)):
            task, self._ahead = self._ahead, None
            return _Part(task)
        if chosen is not None:
            self._again.remove(chosen)
        return chosen

    def _deadline_s(self, part: _Part) -> float:
        if len(self._took_s) < MIN_MEDIAN_OF:
            return self._limit_s
        return min(self._limit_s, max(LEAST_DEADLINE_S, OVERDUE * median(self._took_s)) * 2.0**part.ended)

    def _failed(self, run: _Run, problem: str, now_s: float) -> None:
        part, name = run.part, shard_stem(run.part.task.index)
        self._failures[run.host] += 1
        if run.deadline_s:
            problem = f"ended on {run.host}, where it took {now_s - run.since_s:.0f} s: too long"
            part.ended += 1
            self._slow[run.host] += 1
        if self._slow[run.host] >= MAX_SLOW:
            self._doubt(run, Counter({TOO_SLOW: len(part.task.urls)}), now_s)
            return
        # To be slower than others is no failure.
        part.failures += not 0 < run.deadline_s < self._limit_s
        print(f"shard {name} failed ({part.failures} of {TRIES} tries): {problem}", flush=True)
        if part.failures == TRIES:
            raise StepError(
                f"shard {name} could not be verified in {TRIES} tries: {problem}; "
                "run the step again: it makes only the shards that are missing"
            )
        part.makers += [run.host] if run.deadline_s else []
        self._again.append(part)

    def _doubt(self, run: _Run, causes: Counter[str], now_s: float) -> None:
        """Have a part made again, by another host where there is one."""
        run.part.makers.append(run.host)
        self._again.append(run.part)
        self._health.suspect(run.host, run.part.task.index, causes, now_s)
