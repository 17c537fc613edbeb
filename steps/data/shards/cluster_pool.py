"""Workers that make shards on all hosts of the job, through the Ray cluster that is up."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any, Final

import ray

from steps.data.shards.guarded_downloader import ShardMaker
from steps.data.shards.shard_pool import Outcome
from steps.data.shards.shards_artifact import VerifiedShard
from steps.data.tables.url_table import TableSlice

# One task for each worker waits ready; a task holds its rows of the table.
TASKS_PER_WORKER: Final = 2

_makers: dict[str, ShardMaker] = {}


class ClusterPool:
    """Worker processes on each host."""

    def __init__(self, maker: ShardMaker, processes: int) -> None:
        """`processes` of 0 are one for each core."""
        hosts = [node for node in ray.nodes() if node["Alive"]]
        cpus = min(float(node["Resources"]["CPU"]) for node in hosts)
        per_host = processes or int(cpus)
        self._limit = TASKS_PER_WORKER * per_host * len(hosts)
        # A retry is the collection's business: it counts them.
        options = {"num_cpus": cpus / per_host, "max_retries": 0, "scheduling_strategy": "SPREAD"}
        self._make = ray.remote(**options)(_make)
        self._maker = ray.put(maker)

    def run(self, tasks: Iterator[TableSlice]) -> Iterator[Outcome]:
        """Yield each shard, or why it failed."""
        pending: dict[Any, TableSlice] = {}
        while True:
            for task in islice(tasks, self._limit - len(pending)):
                pending[self._make.remote(self._maker, task)] = task
            if not pending:
                return
            done, _ = ray.wait(list(pending))
            for result in done:
                yield pending.pop(result), _outcome(result)


def _outcome(result: Any) -> VerifiedShard | str:
    try:
        shard: VerifiedShard = ray.get(result)
        return shard
    except ray.exceptions.RayTaskError as error:
        return f"{type(error.cause).__name__}: {error.cause}"
    except ray.exceptions.RayError as error:
        return f"a worker died: {' '.join(str(error).split())[:200]}"


def _make(maker: ShardMaker, task: TableSlice) -> VerifiedShard:
    """Make a shard in this worker process, which keeps what it has set up for the next one."""
    return _makers.setdefault(maker.plan_digest, maker).make(task)
