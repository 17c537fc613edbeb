"""Collects the shards of a url table: finds what is there already, has the rest made, and counts every row's fate.

Reads the table and NNNNN.verified.json under the shards prefix; returns the manifest. A shard that fails is made again;
one that fails for good ends the step, and the next run makes only what is missing.
"""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Callable, Iterator
from importlib.metadata import version
from typing import Final, Protocol

import numpy as np
from pydantic import ValidationError

from params.layout import MANIFEST_FILE
from params.programs import DownloadArguments
from steps.data.causes import Cause
from steps.data.guarded_downloader import ShardTask
from steps.data.shard_pool import Outcome
from steps.data.shards import (
    VERIFIED_SUFFIX,
    ShardRecord,
    ShardsManifest,
    VerifiedShard,
    make_ledger,
    shard_stem,
)
from steps.data.storage import Storage
from steps.data.url_table import TableSlice, UrlTable
from steps.errors import StepError

TRIES: Final = 3
UNTRIED: Final = frozenset({Cause.DUPLICATE.value, Cause.NO_URL.value})

# What decides the bytes of a shard, besides the table: shards made with other values do not count.
_CONTENT_SETTINGS = frozenset(
    {
        "url_column",
        "caption_column",
        "image_size_px",
        "resize_mode",
        "min_image_size_px",
        "max_aspect_ratio",
        "jpeg_quality",
        "samples_per_shard",
        "max_rows",
        "max_body_mb",
        "max_image_megapixels",
    }
)


class ShardPool(Protocol):
    """Makes shards somewhere."""

    def run(self, tasks: Iterator[ShardTask]) -> Iterator[Outcome]:
        """Yield each task with its shard, or with why it failed; may ask for more tasks after it was told of none."""


class Collection:
    """The shards of one table under one prefix."""

    def __init__(self, arguments: DownloadArguments) -> None:
        """Open the table. Raises StepError where it cannot be used."""
        self._arguments = arguments
        self.table = UrlTable(arguments.url_table, arguments.url_column, arguments.caption_column, arguments.max_rows)
        self.plan_digest = self._plan_digest()
        self._storage = Storage(arguments.shards_uri)
        self._storage.make()

    def finished(self) -> dict[int, VerifiedShard]:
        """Return the verified shards of this plan whose tar is there, by number."""
        sizes = self._storage.sizes()
        names = [name for name in sizes if name.endswith(VERIFIED_SUFFIX)]
        shards: dict[int, VerifiedShard] = {}
        for name, content in self._storage.read_many(names).items():
            try:
                record = ShardRecord.model_validate_json(content)
            except ValidationError:
                continue
            if record.plan_digest == self.plan_digest and sizes.get(record.shard.name) == record.shard.bytes:
                shards[int(name.split(".")[0])] = record.shard
        return shards

    def collect(self, pool: ShardPool, shards: dict[int, VerifiedShard], on_shard: Callable[[int], None]) -> None:
        """Add the missing shards to `shards`; `on_shard` hears how many rows are done.

        Raises StepError when a shard cannot be made.
        """
        self._withdraw_manifest()
        self._storage.abort_uploads()
        tasks = _Tasks(self._tasks(frozenset(shards)))
        tries: dict[int, int] = {}
        for task, outcome in pool.run(tasks):
            index = task.rows.index
            if isinstance(outcome, VerifiedShard):
                shards[index] = outcome
                on_shard(sum(shard.rows for shard in shards.values()))
                continue
            tries[index] = tries.get(index, 0) + 1
            print(f"shard {shard_stem(index)} failed ({tries[index]} of {TRIES} tries): {outcome}", flush=True)
            if tries[index] == TRIES:
                raise StepError(
                    f"shard {shard_stem(index)} could not be verified in {TRIES} tries: {outcome}; "
                    "run the step again: it makes only the shards that are missing"
                )
            tasks.again.append(task)

    def manifest(self, shards: dict[int, VerifiedShard]) -> ShardsManifest:
        """Return the manifest of all shards. Raises StepError when too few rows became samples."""
        ordered = tuple(shards[index] for index in sorted(shards))
        ledger = make_ledger(ordered, UNTRIED, Cause.DUPLICATE.value)
        if ledger.rows != self.table.rows:
            raise StepError(f"shards: {ledger.rows} rows are accounted for, the url table has {self.table.rows}")
        if ledger.sample_yield < self._arguments.min_yield:
            worst = sorted(ledger.failed.items(), key=lambda item: -item[1])[:5]
            causes = ", ".join(f"{cause} {count}" for cause, count in worst)
            raise StepError(
                f"min_yield: {ledger.kept} of {ledger.rows} rows became samples, {ledger.sample_yield:.3f}, "
                f"below {self._arguments.min_yield}; most frequent: {causes}"
            )
        return ShardsManifest(
            plan_digest=self.plan_digest,
            table_digest=self.table.digest,
            image_size_px=self._arguments.image_size_px,
            resize_mode=self._arguments.resize_mode,
            ledger=ledger,
            shards=ordered,
        )

    def _tasks(self, finished: frozenset[int]) -> Iterator[ShardTask]:
        size = self._arguments.samples_per_shard
        if len(finished) * size >= self.table.rows:
            return
        duplicates = self.table.duplicates()
        for rows in self.table.shards(size):
            if rows.index not in finished:
                first, last = np.searchsorted(duplicates, (rows.first_row, rows.first_row + len(rows.urls)))
                yield ShardTask(rows, _skipped(rows, duplicates[first:last].tolist()))

    def _withdraw_manifest(self) -> None:
        """Remove the manifest that another plan left: while shards are replaced, the artifact does not exist."""
        try:
            content = self._storage.read(MANIFEST_FILE)
            if json.loads(content).get("plan_digest") == self.plan_digest:
                return
        except (FileNotFoundError, ValueError, AttributeError):
            pass
        self._storage.delete(MANIFEST_FILE)

    def _plan_digest(self) -> str:
        plan = self._arguments.model_dump(mode="json", include=set(_CONTENT_SETTINGS))
        plan |= {"table": self.table.digest, "img2dataset": version("img2dataset")}
        return hashlib.sha256(json.dumps(plan, sort_keys=True).encode()).hexdigest()


class _Tasks(Iterator[ShardTask]):
    """Tasks to be done again, then new ones; it can go on after it has run dry."""

    def __init__(self, new: Iterator[ShardTask]) -> None:
        self._new = new
        self.again: deque[ShardTask] = deque()

    def __next__(self) -> ShardTask:
        return self.again.popleft() if self.again else next(self._new)


def _skipped(rows: TableSlice, duplicates: list[int]) -> dict[int, str]:
    """Return the rows of a slice that are not fetched, and why."""
    skipped = {row - rows.first_row: Cause.DUPLICATE.value for row in duplicates}
    return skipped | {row: Cause.NO_URL.value for row, url in enumerate(rows.urls) if not (url or "").strip()}
