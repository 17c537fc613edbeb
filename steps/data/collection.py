"""Collects the shards of a url table: finds what is there already, has the rest made, and counts every row's fate.

Reads the table, the blocklist and NNNNN.verified.json under the shards prefix; returns the manifest. A shard that fails
is made again; one that fails for good ends the step, and the next run makes only what is missing.
"""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Callable, Iterator
from functools import cached_property
from importlib.metadata import version
from typing import Any, Final, Protocol

from pydantic import ValidationError

from params.layout import MANIFEST_FILE
from params.model import unmentioned
from params.programs import PATIENCE, DownloadArguments, DownloadSettings
from steps.data.blocklist import read_blocklist
from steps.data.deduplication import drop_duplicates
from steps.data.guarded_downloader import ShardMaker, ShardTask
from steps.data.picture_measures import READER_VERSION
from steps.data.rounds import Round, first_round, next_round, tasks
from steps.data.row_checks import row_checks_columns
from steps.data.screening import Screening, screen
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
from steps.data.url_table import UrlTable
from steps.errors import StepError

TRIES: Final = 3

# What decides no byte of a shard; all other settings, and the table, do: shards made with other values do not count.
_OTHER_SETTINGS = frozenset(
    {
        *PATIENCE,
        "processes",
        "threads",
        "timeout_s",
        "retries",
        "allowed_hosts",
        "min_yield",
        "dedup",
        "max_hash_distance",
        "blocklist_uri",
        "top_up",
        "contact",
        "max_retry_after_s",
        "connections_per_host",
    }
)


class ShardPool(Protocol):
    """Makes shards somewhere."""

    def run(self, tasks: Iterator[ShardTask]) -> Iterator[Outcome]:
        """Yield each task with its shard, or with why it failed; may ask for more tasks after it was told of none."""


class Collection:
    """The shards of one table under one prefix."""

    def __init__(self, arguments: DownloadArguments) -> None:
        """Open the table. Raises StepError where it or the blocklist cannot be used."""
        self._arguments = arguments
        self.table = UrlTable(
            arguments.url_table,
            arguments.url_column,
            arguments.caption_column,
            arguments.max_rows,
            arguments.source,
            others=row_checks_columns(arguments),
        )
        self._blocklist = read_blocklist(arguments.blocklist_uri, arguments.max_hash_distance)
        self._shards_digest = self._digest_of_shards({"picture_reader": READER_VERSION})
        # What shards are called that img2dataset's own resizer made: they are kept, and the others made beside them.
        self._first_digest = self._digest_of_shards({"perceptual_hashes": arguments.dedup == "perceptual"})
        self._first_shards: set[int] = set()
        self.plan_digest = self._plan_digest(self._shards_digest)
        self._storage = Storage(arguments.shards_uri)
        self._storage.make()

    def maker(self) -> ShardMaker:
        """Return what makes the shards."""
        return ShardMaker(self._arguments, self._shards_digest, self._blocklist)

    def finished(self) -> dict[int, VerifiedShard]:
        """Return the verified shards of this plan whose tar is there, by number; of all rounds."""
        sizes = self._storage.sizes()
        names = [name for name in sizes if name.endswith(VERIFIED_SUFFIX)]
        shards: dict[int, VerifiedShard] = {}
        for name, content in self._storage.read_many(names).items():
            try:
                record = ShardRecord.model_validate_json(content)
            except ValidationError:
                continue
            is_first = record.plan_digest == self._first_digest
            if not is_first and record.plan_digest != self._shards_digest:
                continue
            if sizes.get(record.shard.name) == record.shard.bytes:
                shards[int(name.split(".")[0])] = record.shard
                if is_first:
                    self._first_shards.add(int(name.split(".")[0]))
        return shards

    def is_complete(self, shards: dict[int, VerifiedShard]) -> bool:
        """Return whether the shards of all rounds are there."""
        return not any(one.missing(shards) for one in self._rounds(shards))

    def collect(self, pool: ShardPool, shards: dict[int, VerifiedShard], on_shard: Callable[[int], None]) -> None:
        """Add the missing shards to `shards`; `on_shard` hears how many rows are done.

        Raises StepError when a shard cannot be made.
        """
        self._storage.abort_uploads()
        for one in self._rounds(shards):
            if one.missing(shards):
                self._collect_round(pool, one, shards, on_shard)

    def _collect_round(
        self, pool: ShardPool, one: Round, shards: dict[int, VerifiedShard], on_shard: Callable[[int], None]
    ) -> None:
        size = self._arguments.samples_per_shard
        queue = _Tasks(tasks(one, self.table, self._screening, dict(shards), size))
        tries: dict[int, int] = {}
        for task, outcome in pool.run(queue):
            index = task.rows.index
            if isinstance(outcome, VerifiedShard):
                shards[index] = outcome
                self._first_shards.discard(index)
                on_shard(sum(shard.rows for shard in shards.values()))
                continue
            tries[index] = tries.get(index, 0) + 1
            print(f"shard {shard_stem(index)} failed ({tries[index]} of {TRIES} tries): {outcome}", flush=True)
            if tries[index] == TRIES:
                raise StepError(
                    f"shard {shard_stem(index)} could not be verified in {TRIES} tries: {outcome}; "
                    "run the step again: it makes only the shards that are missing"
                )
            queue.again.append(task)

    def manifest(self, shards: dict[int, VerifiedShard]) -> ShardsManifest:
        """Return the manifest of all shards, of which copies are marked.

        Raises StepError when too few rows became samples.
        """
        end = [one.end for one in self._rounds(shards)][-1]
        numbers = [index for index in sorted(shards) if index < end]
        of_rounds = [shards[index] for index in numbers]
        is_first = self._first_shards.issuperset(numbers)
        ordered = drop_duplicates(self._storage, of_rounds, self._arguments.dedup, self._arguments.max_hash_distance)
        ledger = make_ledger(ordered)
        accounted = ledger.kept + sum(ledger.failed.values()) + sum(ledger.filtered.values())
        if not ledger.rows == accounted == self.table.rows:
            raise StepError(
                f"shards: {ledger.rows} rows and {accounted} fates are accounted for, "
                f"the url table has {self.table.rows}"
            )
        if ledger.sample_yield < self._arguments.min_yield:
            worst = sorted(ledger.failed.items(), key=lambda item: -item[1])[:5]
            causes = ", ".join(f"{cause} {count}" for cause, count in worst)
            raise StepError(
                f"min_yield: {ledger.kept} of {ledger.kept + sum(ledger.failed.values())} rows became samples, "
                f"{ledger.sample_yield:.3f}, below {self._arguments.min_yield}; most frequent: {causes}"
            )
        return ShardsManifest(
            plan_digest=self._plan_digest(self._first_digest if is_first else self._shards_digest),
            table_digest=self.table.digest,
            image_size_px=self._arguments.image_size_px,
            resize_mode=self._arguments.resize_mode,
            ledger=ledger,
            shards=tuple(ordered),
        )

    def withdraw_manifest(self) -> None:
        """Remove the manifest that another plan left: while shards are replaced, the artifact does not exist."""
        try:
            content = self._storage.read(MANIFEST_FILE)
            if json.loads(content).get("plan_digest") in map(
                self._plan_digest, (self._shards_digest, self._first_digest)
            ):
                return
        except (FileNotFoundError, ValueError, AttributeError):
            pass
        self._storage.delete(MANIFEST_FILE)

    @cached_property
    def _screening(self) -> Screening:
        return screen(self.table, self._arguments)

    def _rounds(self, shards: dict[int, VerifiedShard]) -> Iterator[Round]:
        """Yield the rounds, each as soon as those before it are there."""
        size = self._arguments.samples_per_shard
        one = first_round(self.table, size)
        yield one
        for _ in range(self._arguments.top_up):
            if one.missing(shards):
                return
            one = next_round(one, self._storage, shards, size)
            yield one

    def _plan_digest(self, shards_digest: str) -> str:
        selection = [shards_digest, self._arguments.dedup, self._arguments.max_hash_distance, self._arguments.top_up]
        return hashlib.sha256(json.dumps(selection).encode()).hexdigest()

    def _digest_of_shards(self, reader: dict[str, Any]) -> str:
        """Return what shards are called that a reader makes; `reader` says which."""
        names = set(DownloadSettings.model_fields) - _OTHER_SETTINGS - unmentioned(self._arguments)
        plan = self._arguments.model_dump(mode="json", include=names)
        plan |= {
            "table": self.table.digest,
            "img2dataset": version("img2dataset"),
            "blocklist": [self._blocklist.digest, self._blocklist.max_distance if self._blocklist.digest else 0],
            **reader,
        }
        return hashlib.sha256(json.dumps(plan, sort_keys=True).encode()).hexdigest()


class _Tasks(Iterator[ShardTask]):
    """Tasks to be done again, then new ones; it can go on after it has run dry."""

    def __init__(self, new: Iterator[ShardTask]) -> None:
        self._new = new
        self.again: deque[ShardTask] = deque()

    def __next__(self) -> ShardTask:
        return self.again.popleft() if self.again else next(self._new)
