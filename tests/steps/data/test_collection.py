from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from params.layout import MANIFEST_FILE
from params.programs import DownloadArguments
from steps.data.collection import Collection
from steps.data.guarded_downloader import ShardTask
from steps.data.shard_pool import Outcome
from steps.data.shards import ShardRecord, VerifiedShard, shard_stem
from steps.data.storage import Storage
from steps.errors import StepError


class Pool:
    """Makes shards of nothing, here and now; `fails` says which try of which shard fails."""

    def __init__(self, collection: Collection, uri: str, fails: Callable[[int, int], bool] = lambda *_: False) -> None:
        self._plan, self._storage, self._fails = collection.plan_digest, Storage(uri), fails
        self.tries: list[int] = []
        self.skipped: dict[int, dict[int, str]] = {}

    def run(self, tasks: Iterator[ShardTask]) -> Iterator[Outcome]:
        while True:
            ready = list(islice(tasks, 2))
            if not ready:
                return
            for task in ready:
                yield task, self._make(task)

    def _make(self, task: ShardTask) -> VerifiedShard | str:
        index = task.rows.index
        self.tries.append(index)
        self.skipped[index] = dict(task.skipped)
        if self._fails(index, self.tries.count(index)):
            return "refused"
        rows, failed = len(task.rows.urls), dict(Counter(task.skipped.values()))
        shard = VerifiedShard(
            name=f"{shard_stem(index)}.tar",
            rows=rows,
            samples=rows - len(task.skipped),
            bytes=3,
            sha256="",
            failed=failed,
        )
        self._storage.write(shard.name, b"tar")
        record = ShardRecord(plan_digest=self._plan, shard=shard)
        self._storage.write(f"{shard_stem(index)}.verified.json", record.model_dump_json().encode())
        return shard


@pytest.fixture
def arguments(tmp_path: Path) -> DownloadArguments:
    urls = ["a", "b", "c", "a", "d", "e", "a", None, "f", "g"]
    pq.write_table(pa.table({"url": urls, "caption": [""] * 10}), tmp_path / "t.parquet")
    return DownloadArguments(
        url_table=str(tmp_path / "t.parquet"), shards_uri=str(tmp_path / "shards"), samples_per_shard=3, min_yield=0.7
    )


def collect(arguments: DownloadArguments, pool: Pool, collection: Collection) -> dict[int, VerifiedShard]:
    shards = collection.finished()
    collection.collect(pool, shards, lambda rows: None)
    return shards


def test_every_row_is_accounted_for_and_a_repeated_url_is_kept_once(arguments: DownloadArguments) -> None:
    collection = Collection(arguments)
    pool = Pool(collection, arguments.shards_uri)
    manifest = collection.manifest(collect(arguments, pool, collection))
    assert pool.skipped == {0: {}, 1: {0: "duplicate"}, 2: {0: "duplicate", 1: "no_url"}, 3: {}}
    ledger = manifest.ledger
    assert (ledger.rows, ledger.tried, ledger.kept) == (10, 7, 7)
    assert [shard.name for shard in manifest.shards] == ["00000.tar", "00001.tar", "00002.tar", "00003.tar"]


def test_a_failed_shard_is_made_again(arguments: DownloadArguments) -> None:
    collection = Collection(arguments)
    pool = Pool(collection, arguments.shards_uri, lambda index, tries: index in (1, 3) and tries < 3)
    assert sorted(collect(arguments, pool, collection)) == [0, 1, 2, 3]
    assert pool.tries.count(1) == pool.tries.count(3) == 3


def test_a_shard_that_keeps_failing_ends_the_step_and_is_named(arguments: DownloadArguments) -> None:
    collection = Collection(arguments)
    pool = Pool(collection, arguments.shards_uri, lambda index, _: index == 1)
    with pytest.raises(StepError, match=r"shard 00001 could not be verified in 3 tries: refused; run the step again"):
        collect(arguments, pool, collection)


def test_a_second_run_makes_only_what_is_missing(arguments: DownloadArguments) -> None:
    collection = Collection(arguments)
    first = collect(arguments, Pool(collection, arguments.shards_uri), collection)
    storage = Storage(arguments.shards_uri)
    storage.delete("00001.verified.json")
    storage.write("00002.tar", b"cut short")
    storage.write("00003.verified.json", b"{")
    again = Collection(arguments)
    pool = Pool(again, arguments.shards_uri)
    assert collect(arguments, pool, again) == first
    assert sorted(pool.tries) == [1, 2, 3]


def test_a_finished_collection_asks_for_nothing(arguments: DownloadArguments) -> None:
    collection = Collection(arguments)
    collect(arguments, Pool(collection, arguments.shards_uri), collection)
    pool = Pool(collection, arguments.shards_uri)
    collect(arguments, pool, collection)
    assert pool.tries == []


@pytest.mark.parametrize("change", [{"samples_per_shard": 4}, {"image_size_px": 128}, {"max_rows": 5}])
def test_shards_of_other_settings_do_not_count(arguments: DownloadArguments, change: dict[str, int]) -> None:
    collection = Collection(arguments)
    collect(arguments, Pool(collection, arguments.shards_uri), collection)
    assert Collection(arguments.model_copy(update=change)).finished() == {}
    assert len(Collection(arguments.model_copy(update={"threads": 1, "timeout_s": 1.0})).finished()) == 4


def test_a_manifest_of_other_settings_is_withdrawn_before_its_shards_are_replaced(
    arguments: DownloadArguments,
) -> None:
    storage, collection = Storage(arguments.shards_uri), Collection(arguments)
    storage.write(MANIFEST_FILE, f'{{"plan_digest": "{collection.plan_digest}"}}'.encode())
    collect(arguments, Pool(collection, arguments.shards_uri), collection)
    assert storage.size(MANIFEST_FILE)
    other = Collection(arguments.model_copy(update={"image_size_px": 128}))
    with pytest.raises(StepError):
        collect(arguments, Pool(other, arguments.shards_uri, lambda *_: True), other)
    assert storage.size(MANIFEST_FILE) is None


def test_too_low_a_yield_ends_the_step_and_names_the_causes(arguments: DownloadArguments) -> None:
    collection = Collection(arguments.model_copy(update={"min_yield": 0.75}))
    shards = collect(arguments, Pool(collection, arguments.shards_uri), collection)
    with pytest.raises(StepError, match=r"min_yield: 7 of 10 rows .* 0\.700, below 0\.75; most frequent: duplicate"):
        collection.manifest(shards)


def test_a_manifest_of_fewer_rows_than_the_table_is_refused(arguments: DownloadArguments) -> None:
    collection = Collection(arguments)
    shards = collect(arguments, Pool(collection, arguments.shards_uri), collection)
    del shards[2]
    with pytest.raises(StepError, match="7 rows are accounted for, the url table has 10"):
        collection.manifest(shards)
