"""Collects the shards of a url table: finds what is there already, has the rest made, and counts every row's fate.

Reads the table, the blocklist and NNNNN.verified.json under the shards prefix; returns the manifest. A shard that fails
is made again; one that fails for good ends the step, and the next run makes only what is missing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from importlib.metadata import version
from typing import Any, Final, Protocol

from params.model import Decides
from params.programs import DownloadArguments
from steps.artifact import Artifact, Identity
from steps.data.blocklist import read_blocklist
from steps.data.deduplication import drop_duplicates
from steps.data.guarded_downloader import ShardMaker, ShardTask
from steps.data.picture_measures import READER_VERSION
from steps.data.rounds import Round, first_round, next_round, tasks
from steps.data.row_checks import row_checks_columns
from steps.data.screening import Screening, screen
from steps.data.shard_pool import Outcome
from steps.data.shards import ShardRecord, ShardsManifest, VerifiedShard, make_ledger, shard_stem
from steps.data.url_table import UrlTable
from steps.errors import StepError

TRIES: Final = 3


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
            settings=arguments,
        )
        self._blocklist = read_blocklist(arguments.blocklist_uri, arguments.max_hash_distance)
        extent = arguments.deciding(arguments.names(Decides.EXTENT)).values()
        # Shards that img2dataset's own resizer made are kept, and the others made beside them.
        former = self._identity({"perceptual_hashes": arguments.dedup == "perceptual"})
        identity = self._identity({"picture_reader": READER_VERSION})
        self.artifact = Artifact(arguments.shards_uri, identity, tuple(extent), former)
        self._former_shards: set[int] = set()
        self._storage = self.artifact.storage

    def maker(self) -> ShardMaker:
        """Return what makes the shards."""
        return ShardMaker(self._arguments, self.artifact.parts_digest, self._blocklist)

    def finished(self) -> dict[int, VerifiedShard]:
        """Return the verified shards of this plan whose tar is there, by number; of all rounds."""
        records = {int(name.removesuffix(".tar")): one for name, one in self.artifact.finished(ShardRecord).items()}
        former = self.artifact.former_parts_digest
        self._former_shards = {number for number, record in records.items() if record.plan_digest == former}
        return {number: record.shard for number, record in records.items()}

    def is_complete(self, shards: dict[int, VerifiedShard]) -> bool:
        """Return whether the shards of all rounds are there."""
        return not any(one.missing(shards) for one in self._rounds(shards))

    def collect(self, pool: ShardPool, shards: dict[int, VerifiedShard], on_shard: Callable[[int], None]) -> None:
        """Add the missing shards to `shards`; `on_shard` hears how many rows are done.

        Raises StepError when a shard cannot be made.
        """
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
                self._former_shards.discard(index)
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
        former = self.artifact.former_parts_digest
        parts_digest = former if former and self._former_shards.issuperset(numbers) else self.artifact.parts_digest
        ordered = drop_duplicates(self._storage, of_rounds, self._arguments.dedup, self._arguments.max_hash_distance)
        ledger = make_ledger(ordered, self.table.oddities.set_aside)
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
            plan_digest=self.artifact.digest_of(parts_digest),
            table_digest=self.table.digest,
            image_size_px=self._arguments.image_size_px,
            resize_mode=self._arguments.resize_mode,
            ledger=ledger,
            shards=tuple(ordered),
        )

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

    def _identity(self, reader: Mapping[str, Any]) -> Identity:
        return self._arguments.deciding(self._arguments.names(Decides.CONTENT)) | {
            "table": self.table.digest,
            "img2dataset": version("img2dataset"),
            "blocklist": [self._blocklist.digest, self._blocklist.max_distance if self._blocklist.digest else 0],
            **reader,
        }


class _Tasks(Iterator[ShardTask]):
    """Tasks to be done again, then new ones; it can go on after it has run dry."""

    def __init__(self, new: Iterator[ShardTask]) -> None:
        self._new = new
        self.again: deque[ShardTask] = deque()

    def __next__(self) -> ShardTask:
        return self.again.popleft() if self.again else next(self._new)
