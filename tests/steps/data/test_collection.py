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
from steps.data.samples import read_table
from steps.data.shard_pool import Outcome
from steps.data.shards import ShardRecord, VerifiedShard, shard_stem
from steps.data.storage import Storage
from steps.errors import StepError
from tests.steps.data import tables


class Pool:
    """Makes shards of nothing, here and now; `fails` says which try of which shard fails."""

    def __init__(
        self,
        collection: Collection,
        uri: str,
        fails: Callable[[int, int], bool] = lambda *_: False,
        fate: Callable[[str], str | None] = lambda url: None,
    ) -> None:
        self._plan, self._storage, self._fails, self._fate = collection.maker().plan_digest, Storage(uri), fails, fate
        self.tries: list[int] = []
        self.urls: list[str] = []
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
        fetched = {row: url or "" for row, url in enumerate(task.rows.urls) if row not in task.skipped}
        self.urls += fetched.values()
        fates = {row: cause for row, url in fetched.items() if (cause := self._fate(url))} | dict(task.skipped)
        rows = [(fates.get(row), url) for row, url in enumerate(task.rows.urls)]
        shard = VerifiedShard(
            name=f"{shard_stem(index)}.tar",
            rows=len(rows),
            samples=len(rows) - len(fates),
            bytes=3,
            sha256="",
            failed=dict(Counter(fates.values())),
            untried=len(task.skipped),
            retried=dict(task.retried),
        )
        self._storage.write(shard.name, b"tar")
        tables.write_fates(self._storage, index, [cause for cause, _ in rows])
        tables.write_samples(self._storage, index, [url or "" for cause, url in rows if cause is None])
        record = ShardRecord(plan_digest=self._plan, shard=shard)
        self._storage.write(f"{shard_stem(index)}.verified.json", record.model_dump_json().encode())
        return shard


@pytest.fixture
def arguments(tmp_path: Path) -> DownloadArguments:
    urls = ["a", "b", "c", "a", "d", "e", "a", None, "f", "g"]
    pq.write_table(pa.table({"url": urls, "caption": ["a caption"] * 10}), tmp_path / "t.parquet")
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
    assert (ledger.failed, ledger.filtered, ledger.sample_yield) == ({"no_url": 1}, {"duplicate": 2}, 0.875)
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


@pytest.mark.parametrize(
    "change",
    [
        {"samples_per_shard": 4},
        {"image_size_px": 128},
        {"max_rows": 5},
        {"min_caption_characters": 1},
        {"upscale": True},
        {"ignored_opt_outs": ("content-usage",)},
    ],
)
def test_shards_of_other_settings_do_not_count(arguments: DownloadArguments, change: dict[str, object]) -> None:
    collection = Collection(arguments)
    collect(arguments, Pool(collection, arguments.shards_uri), collection)
    assert Collection(arguments.model_copy(update=change)).finished() == {}
    assert (
        len(
            Collection(
                arguments.model_copy(update={"threads": 1, "contact": "a@b.c", "dedup": "perceptual"})
            ).finished()
        )
        == 4
    )


def test_a_manifest_of_other_settings_is_withdrawn_before_its_shards_are_replaced(
    arguments: DownloadArguments,
) -> None:
    storage, collection = Storage(arguments.shards_uri), Collection(arguments)
    storage.write(MANIFEST_FILE, f'{{"plan_digest": "{collection.artifact.digest}"}}'.encode())
    collect(arguments, Pool(collection, arguments.shards_uri), collection)
    assert storage.size(MANIFEST_FILE)
    other = Collection(arguments.model_copy(update={"image_size_px": 128}))
    other.artifact.begin()
    with pytest.raises(StepError):
        collect(arguments, Pool(other, arguments.shards_uri, lambda *_: True), other)
    assert storage.size(MANIFEST_FILE) is None


def test_too_low_a_yield_ends_the_step_and_names_the_causes(arguments: DownloadArguments) -> None:
    collection = Collection(arguments.model_copy(update={"min_yield": 0.9}))
    shards = collect(arguments, Pool(collection, arguments.shards_uri), collection)
    with pytest.raises(StepError, match=r"min_yield: 7 of 8 rows .* 0\.875, below 0\.9; most frequent: no_url 1"):
        collection.manifest(shards)


def test_a_manifest_of_fewer_rows_than_the_table_is_refused(arguments: DownloadArguments) -> None:
    collection = Collection(arguments)
    shards = collect(arguments, Pool(collection, arguments.shards_uri), collection)
    del shards[2]
    with pytest.raises(StepError, match="7 rows and 7 fates are accounted for, the url table has 10"):
        collection.manifest(shards)


def test_a_top_up_tries_only_what_failed_for_a_reason_that_can_pass(arguments: DownloadArguments) -> None:
    collection = Collection(arguments)
    causes = {"a": "timeout", "c": "http_404", "e": "http_503", "g": "timeout"}
    shards = collect(arguments, Pool(collection, arguments.shards_uri, fate=causes.get), collection)
    ledgers = [Collection(arguments.model_copy(update={"min_yield": 0.0})).manifest(dict(shards)).ledger]
    for top_up in (1, 2):
        causes.pop("e", None)
        again = Collection(arguments.model_copy(update={"top_up": top_up, "min_yield": 0.0}))
        pool = Pool(again, arguments.shards_uri, fate=causes.get)
        found = collect(arguments, pool, again)
        assert pool.urls == (["a", "e", "g"] if top_up == 1 else ["a", "g"])
        ledgers.append(again.manifest(found).ledger)
        assert again.is_complete(found)
    assert [ledger.failed for ledger in ledgers] == [
        {"http_404": 1, "http_503": 1, "no_url": 1, "timeout": 2},
        {"http_404": 1, "no_url": 1, "timeout": 2},
        {"http_404": 1, "no_url": 1, "timeout": 2},
    ]
    assert [ledger.kept for ledger in ledgers] == [3, 4, 4]
    assert {(ledger.rows, ledger.tried) for ledger in ledgers} == {(10, 7)}


def test_a_broken_top_up_goes_on_where_it_was_and_shards_of_more_rounds_do_not_count(
    arguments: DownloadArguments,
) -> None:
    first = Collection(arguments)
    collect(arguments, Pool(first, arguments.shards_uri, fate=lambda url: "timeout"), first)
    again = Collection(arguments.model_copy(update={"top_up": 1}))
    with pytest.raises(StepError, match="shard 00005"):
        collect(arguments, Pool(again, arguments.shards_uri, lambda index, _: index == 5), again)
    pool = Pool(again, arguments.shards_uri)
    assert again.manifest(collect(arguments, pool, again)).ledger.kept == 7
    assert set(pool.tries) < {4, 5, 6} and 5 in pool.tries
    with pytest.raises(StepError, match="min_yield: 0 of 8"):
        first.manifest(first.finished())


def test_copies_of_a_picture_count_once_and_a_laxer_setting_brings_them_back(arguments: DownloadArguments) -> None:
    collection = Collection(arguments)
    shards = collect(arguments, Pool(collection, arguments.shards_uri), collection)
    storage = Storage(arguments.shards_uri)
    tables.write_samples(storage, 3, ["b"])
    manifest = collection.manifest(shards)
    assert (manifest.ledger.kept, manifest.ledger.filtered) == (6, {"duplicate": 2, "duplicate_picture": 1})
    assert (manifest.shards[3].samples, manifest.shards[3].dropped) == (0, {"duplicate_picture": 1})
    assert read_table(storage, "00003.tar").captions == []
    lax = Collection(arguments.model_copy(update={"dedup": "url"}))
    assert lax.manifest(lax.finished()).ledger.kept == 7
    assert read_table(storage, "00003.tar").captions == ["b"]


def made_by_the_first_reader(collection: Collection, uri: str) -> None:
    """Give the shards that are there the name that they had before pictures were read by a reader of our own."""
    storage = Storage(uri)
    for name in storage.sizes():
        if name.endswith(".verified.json"):
            record = ShardRecord.model_validate_json(storage.read(name))
            old = record.model_copy(update={"plan_digest": collection.artifact.former_parts_digest})
            storage.write(name, old.model_dump_json().encode())


def test_shards_of_before_the_own_reader_are_kept_and_so_is_their_manifest(arguments: DownloadArguments) -> None:
    collection = Collection(arguments)
    collect(arguments, Pool(collection, arguments.shards_uri), collection)
    made_by_the_first_reader(collection, arguments.shards_uri)
    again = Collection(arguments)
    shards = again.finished()
    assert again.is_complete(shards)
    manifest = again.manifest(shards)
    former = again.artifact.former_parts_digest
    assert former and manifest.plan_digest == again.artifact.digest_of(former) != again.artifact.digest
    assert "treated" not in manifest.model_dump_json()
    Storage(arguments.shards_uri).write(MANIFEST_FILE, manifest.model_dump_json().encode())
    again.artifact.begin()
    assert Storage(arguments.shards_uri).size(MANIFEST_FILE)


def test_what_is_missing_beside_shards_of_before_is_made_by_the_new_reader(arguments: DownloadArguments) -> None:
    collection = Collection(arguments)
    collect(arguments, Pool(collection, arguments.shards_uri), collection)
    made_by_the_first_reader(collection, arguments.shards_uri)
    Storage(arguments.shards_uri).delete("00001.verified.json")
    again = Collection(arguments)
    pool = Pool(again, arguments.shards_uri)
    assert again.manifest(collect(arguments, pool, again)).plan_digest == again.artifact.digest
    assert pool.tries == [1]
