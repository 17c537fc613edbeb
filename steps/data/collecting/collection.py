"""Collects the shards of a url table: which rows were fetched already, which are to be, and which samples count.

Reads the table, the blocklist, and NNNNN.verified.json and NNNNN.parquet under the shards prefix; marks samples and
returns the manifest. Shards are fetched once: a longer table, a raised max_rows, another threshold or blocklist fetches
the rows that are new and no others, and what it leaves out is marked. A shard that fails is made again; one that fails
for good ends the step, and the next run makes only what is missing.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from functools import cached_property
from importlib.metadata import version

import numpy as np

from params.filters import FILTERS, Filter
from params.model import Decides
from params.programs import DownloadArguments
from params.spilling import spilled_bytes
from steps.artifact import Artifact, Identity, digest
from steps.data.collecting import release_0_1
from steps.data.collecting.deduplication import mark_samples
from steps.data.collecting.fates import FateBook
from steps.data.collecting.parts import hash_shift, require_room
from steps.data.collecting.pending import Pending, next_pending, tasks
from steps.data.collecting.screening import Screening, screen
from steps.data.collecting.standing import TableStanding
from steps.data.pictures.picture_measures import READER_VERSION
from steps.data.shards.blocklist import read_blocklist
from steps.data.shards.guarded_downloader import ShardMaker
from steps.data.shards.limits import Limits, limits_of
from steps.data.shards.row_checks import row_checks_columns
from steps.data.shards.shard_pool import ShardPool
from steps.data.shards.shards_artifact import (
    Ledger,
    ShardRecord,
    ShardsManifest,
    VerifiedShard,
    make_ledger,
)
from steps.data.tables.url_table import UrlTable
from steps.errors import StepError


class Collection:
    """The shards of one table under one prefix."""

    def __init__(self, arguments: DownloadArguments) -> None:
        """Open the table. Raises StepError where it or the blocklist cannot be used, or the disk is too small."""
        self._arguments = arguments
        self.table = UrlTable(arguments.url_table, arguments, row_checks_columns(arguments))
        require_room(spilled_bytes(self.table.rows, arguments.dedup))
        self._blocklist = read_blocklist(arguments.blocklist_uri, arguments.max_hash_distance)
        self._limits = limits_of(arguments, self._blocklist)
        extent = arguments.deciding(arguments.names(Decides.EXTENT))
        self.artifact = Artifact(
            arguments.shards_uri, self._identity(READER_VERSION), (extent, self.table.digest, self._blocklist.digest)
        )
        self._storage = self.artifact.storage
        self._book = FateBook(
            self._storage, self._blocklist, arguments.captions != "all", hash_shift(self.table.rows), self._filters
        )
        self._joined: tuple[frozenset[int], TableStanding] | None = None
        former = release_0_1.identity_of(arguments, self.table.digest, self._blocklist)
        self._former_digest = digest(former)
        self.artifact.former_digest = release_0_1.whole_digest(arguments, self._former_digest)
        self._made_with: dict[int, Limits] = {}
        self._former: dict[int, str] = {}

    def maker(self) -> ShardMaker:
        return ShardMaker(self._arguments, self._blocklist)

    def finished(self) -> dict[int, VerifiedShard]:
        """Return the verified shards that are there, by number; of release 0.1.0, too."""
        records = {int(name.removesuffix(".tar")): one for name, one in self.artifact.recorded(ShardRecord).items()}
        former = release_0_1.recognised(
            self._storage,
            records.values(),
            self._arguments,
            self.table.digest,
            self._blocklist,
            digest(self._identity(1)),
        )
        ours = {number: one for number, one in records.items() if one.plan_digest == self.artifact.parts_digest}
        theirs = {number: one for number, one in records.items() if one.plan_digest in former}
        self._former = {number: one.plan_digest for number, one in theirs.items()}
        self._made_with = {number: one.limits for number, one in ours.items()}
        self._made_with |= {number: former[one.plan_digest] for number, one in theirs.items()}
        return {number: one.shard for number, one in (ours | theirs).items()}

    def rows_left(self, shards: Iterable[int]) -> int:
        """Return how many rows are to be fetched next, beside these shards; 0: none."""
        pending = self._pending(shards)
        return 0 if pending is None else pending.rows

    def collect(self, pool: ShardPool, shards: dict[int, VerifiedShard], on_shard: Callable[[int], None]) -> None:
        """Add the missing shards to `shards`; `on_shard` hears of each how many rows it has.

        Raises StepError when a shard cannot be made.
        """
        self._storage.make()
        before = None
        while (pending := self._pending(shards)) is not None:
            if before is not None and before.is_same(pending):
                raise StepError(f"shards: {pending.rows} rows are not in the shards that were made of them")
            self._collect(pool, pending, shards, on_shard)
            before = pending

    def _collect(
        self, pool: ShardPool, pending: Pending, shards: dict[int, VerifiedShard], on_shard: Callable[[int], None]
    ) -> None:
        new = tasks(pending, self.table, set(shards), self._arguments.samples_per_shard)
        for index, shard in pool.run(new, is_retry=pending.first_number > 0):
            ShardRecord(plan_digest=self.artifact.parts_digest, shard=shard, limits=self._limits).write(self._storage)
            shards[index] = shard
            self._made_with[index] = self._limits
            on_shard(shard.rows)

    def manifest(self, shards: dict[int, VerifiedShard]) -> ShardsManifest:
        """Return the manifest of all shards that have rows of the table, in which what does not count is marked.

        Raises StepError when too few rows became samples.
        """
        standing = self._standing(shards)
        used = np.flatnonzero(standing.is_used).tolist()
        marked, dropped = mark_samples(
            self._storage,
            [shards[number] for number in used],
            standing.samples(),
            self._arguments.dedup,
            self._arguments.max_hash_distance,
            self._blocklist,
        )
        left_out, failed = standing.counts()
        tried = self.table.rows - left_out.total()
        ledger = self._ledger(marked, left_out + failed + dropped, tried)
        is_former = bool(used) and all(self._former.get(number) == self._former_digest for number in used)
        return ShardsManifest(
            plan_digest=self.artifact.former_digest if is_former else self.artifact.digest,
            table_digest=self.table.digest,
            image_size_px=self._arguments.image_size_px,
            resize_mode=self._arguments.resize_mode,
            ledger=ledger,
            shards=tuple(marked),
        )

    def _standing(self, shards: Iterable[int]) -> TableStanding:
        """Return how the table stands against these shards; they are joined once, however often one asks."""
        numbers = frozenset(shards)
        if self._joined is None or self._joined[0] != numbers:
            self._book.read(self._limits, self._made_with, numbers | self._former.keys())
            before = self._screening_before if self._former else None
            self._joined = numbers, TableStanding(self._screening, before, self._book, numbers, self._former)
        return self._joined[1]

    def _pending(self, shards: Iterable[int]) -> Pending | None:
        of_other_limits = [number for number, limits in self._made_with.items() if limits != self._limits]
        former_end = max(of_other_limits, default=-1) + 1
        return next_pending(self._standing(shards), former_end, self._arguments.top_up)

    def _filters(self, number: int) -> list[Filter]:
        """Return what judges the sizes of a shard's pictures."""
        settings = self._as_before if number in self._former else self._arguments
        return [kind.from_settings(settings) for kind in FILTERS if kind.measured]

    def _ledger(self, shards: list[VerifiedShard], counts: Counter[str], tried: int) -> Ledger:
        """Return every row's fate; `counts` are those of rows that are no samples that count."""
        ledger = make_ledger(shards, counts, self.table.rows, tried, self.table.oddities.set_aside)
        accounted = ledger.kept + sum(ledger.failed.values()) + sum(ledger.filtered.values())
        if accounted != self.table.rows:
            raise StepError(f"shards: {accounted} fates are accounted for, the url table has {self.table.rows} rows")
        if ledger.sample_yield < self._arguments.min_yield:
            worst = sorted(ledger.failed.items(), key=lambda item: -item[1])[:5]
            causes = ", ".join(f"{cause} {count}" for cause, count in worst)
            raise StepError(
                f"min_yield: {ledger.kept} of {ledger.kept + sum(ledger.failed.values())} rows became samples, "
                f"{ledger.sample_yield:.3f}, below {self._arguments.min_yield}; most frequent: {causes}"
            )
        return ledger

    @cached_property
    def _screening(self) -> Screening:
        return screen(self.table, self._arguments)

    @cached_property
    def _as_before(self) -> DownloadArguments:
        return release_0_1.as_it_judged(self._arguments)

    @cached_property
    def _screening_before(self) -> Screening:
        return screen(self.table, self._as_before)

    def _identity(self, reader: int) -> Identity:
        """Return what decides the bytes of a row's sample that a reader makes."""
        identity = self._arguments.deciding(self._arguments.names(Decides.CONTENT))
        identity |= {"img2dataset": version("img2dataset"), "picture_reader": reader}
        if self._arguments.source != "urls" or self._arguments.captions == "all" or row_checks_columns(self._arguments):
            # Address and caption do not say all of these rows.
            identity["table"] = self.table.digest
        return identity
