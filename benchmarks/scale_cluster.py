"""Download on a cluster of hosts that are none, over the scheduling that real ones have, with a clock that jumps.

Reads nothing, writes nothing. `steps.data.shards.schedule` decides who makes which shard. Each host makes sixteen at a
time, at the forecast's 1,000 rows a second; some hosts are sick, slow, or die. How much shards' times differ, and
which rows of a table fail, are assumptions.
"""

import heapq
import random
import sys
from argparse import Namespace
from collections import defaultdict
from contextlib import redirect_stdout
from typing import Any, Final

from steps.data.causes import Cause
from steps.data.shards.host_health import HostHealth
from steps.data.shards.schedule import Schedule
from steps.data.shards.shards_artifact import VerifiedShard, shard_stem
from steps.data.tables.url_table import TableSlice

FLAGS: Final = {
    "shards": (113_000, "of 10,000 rows: those of params/sd2_base.yaml"),
    "sick": (1, "hosts without DNS: they fail a row at once"),
    "stragglers": (2, "hosts that take four times as long"),
    "deaths": (1, "hosts that die, at times of their own"),
    "hangs": (1, "shards that would not end, where they are first made"),
    "seed": (0, "of the times and the faults"),
}
ROWS, PLACES, ROWS_PER_S = 10_000, 16, 1_000
MEAN_S: Final = ROWS * PLACES / ROWS_PER_S
# The standard deviation of the logarithm of a shard's time; times of a straggler and of a sick host; of one that hangs.
SPREAD, SLOW, QUICK, FOREVER = 0.15, 4.0, 0.05, 1e9
# Of a table's rows, that no host could fetch; a sick host fetches none.
USUAL: Final = {Cause.TIMEOUT.value: 0.05, Cause.NO_ADDRESS.value: 0.1}
LONGEST_S: Final = 6 * 3600.0
# How often the driver looks for what takes too long.
LOOK_S: Final = 10.0


class SimulatedCluster:
    """Hosts, what each is making, and the clock."""

    def __init__(self, hosts: int, asked: Namespace) -> None:
        self._random = random.Random(asked.seed)
        self._alive = [f"algo-{number}" for number in range(1, hosts + 1)]
        chosen = self._random.sample(self._alive, asked.sick + asked.stragglers + asked.deaths)
        self.sick, self.slow = chosen[: asked.sick], chosen[asked.sick : asked.sick + asked.stragglers]
        self._hanging = set(self._random.sample(range(asked.shards), asked.hangs))
        self.health = HostHealth(self._alive)
        urls: list[str | None] = [None] * ROWS
        tasks = (TableSlice(index, 0, urls, []) for index in range(asked.shards))
        self._schedule = Schedule(tasks, self.health, LONGEST_S)
        self.ideal_s = asked.shards * MEAN_S / (hosts * PLACES)
        self._events: list[tuple[float, float, str, TableSlice | None]] = []
        """When, since when, the host, and the shard that it has made then; none: the host dies."""
        self._making: dict[str, dict[int, float]] = defaultdict(dict)
        """Of each host: by shard, since when."""
        self.now_s = self.wasted_s = 0.0
        self.good_rows = 0
        for host in chosen[asked.sick + asked.stragglers :]:
            heapq.heappush(self._events, (self._random.random() * self.ideal_s, 0.0, host, None))

    def run(self) -> None:
        """Run until every shard is made. Raises StepError where the scheduling gives up."""
        look_s = 0.0
        while not self._schedule.is_finished:
            for host, task in self._schedule.overdue(self.now_s):
                self._done(host, task, "it was ended")
            for host in self._alive:
                self._fill(host)
            look_s += LOOK_S
            while self._events and self._events[0][0] <= look_s and not self._schedule.is_finished:
                self.now_s, since_s, host, task = heapq.heappop(self._events)
                if task is None:
                    self._die(host)
                elif self._making[host].get(task.index) == since_s:
                    self._done(host, task, self._made(host, task))
                    self._fill(host)
            self.now_s = self.now_s if self._schedule.is_finished else look_s

    def _fill(self, host: str) -> None:
        while len(self._making[host]) < PLACES and (task := self._schedule.next_for(host, self.now_s)):
            took_s = MEAN_S * self._random.lognormvariate(-SPREAD * SPREAD / 2, SPREAD)
            took_s *= QUICK if host in self.sick else SLOW if host in self.slow else 1.0
            if task.index in self._hanging:
                self._hanging.remove(task.index)
                took_s *= FOREVER
            self._making[host][task.index] = self.now_s
            heapq.heappush(self._events, (self.now_s + took_s, self.now_s, host, task))

    def _made(self, host: str, task: TableSlice) -> VerifiedShard:
        failed = {cause: round(ROWS * share * self._random.uniform(0.8, 1.2)) for cause, share in USUAL.items()}
        if host in self.sick:
            failed = {Cause.NO_ADDRESS.value: ROWS}
        kept = ROWS - sum(failed.values())
        name = f"{shard_stem(task.index)}.tar"
        return VerifiedShard(name=name, rows=ROWS, samples=kept, bytes=0, sha256="", failed=failed)

    def _done(self, host: str, task: TableSlice, outcome: VerifiedShard | str) -> None:
        took_s = self.now_s - self._making[host].pop(task.index)
        shard = self._schedule.done(host, task, outcome, self.now_s)
        if shard is None:
            self.wasted_s += took_s
        elif host not in self.sick:
            self.good_rows += shard.rows

    def _die(self, host: str) -> None:
        self._alive.remove(host)
        self.wasted_s += sum(self.now_s - since_s for since_s in self._making.pop(host, {}).values())
        self._schedule.lost(host)


def simulated(counts: list[int], asked: Namespace) -> dict[str, Any]:
    """Return what became of a download on clusters of these sizes."""
    lines, faulty = [], asked.sick + asked.stragglers + asked.deaths
    for hosts in counts:
        if hosts <= faulty:
            raise SystemExit(f"error: --hosts {hosts}: none is well beside {faulty} that are not; set it higher")
        cluster = SimulatedCluster(hosts, asked)
        # What the scheduling says of its hosts is for people.
        with redirect_stdout(sys.stderr):
            cluster.run()
        aside = (f"{host} ({cause})" for host, cause in sorted(cluster.health.sick.items()))
        lines.append(
            {
                "hosts": hosts,
                "hours": cluster.now_s / 3600,
                "ideal_hours": cluster.ideal_s / 3600,
                "times_ideal": cluster.now_s / cluster.ideal_s,
                "rows_lost_%": 100 * (1 - cluster.good_rows / (asked.shards * ROWS)),
                "work_made_twice_%": 100 * cluster.wasted_s / (asked.shards * MEAN_S),
                "set_aside": ", ".join(aside) or "none",
            }
        )
    return {"clusters": lines}
