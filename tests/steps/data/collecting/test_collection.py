import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from params.layout import MANIFEST_FILE
from params.programs import DownloadArguments
from params.spilling import spilled_bytes
from steps.data.collecting.collection import Collection
from steps.data.collecting.deduplication import LOOK
from steps.data.collecting.fates import FATE
from steps.data.collecting.screening import ROW
from steps.data.collecting.standing import SAMPLE, STATE
from steps.data.encoding.samples import read_table
from steps.data.shards.shards_artifact import ShardRecord, ShardsManifest, VerifiedShard, shard_stem
from steps.data.storage import Storage
from steps.data.tables.url_table import TableSlice
from steps.errors import StepError
from tests.steps.data import shard_tables


class Pool:
    """Makes shards of nothing, here and now; `fails` says which try of which shard fails."""

    def __init__(
        self,
        collection: Collection,
        uri: str,
        fails: Callable[[int, int], bool] = lambda *_: False,
        fate: Callable[[str], str | None] = lambda url: None,
    ) -> None:
        self._storage, self._fails, self._fate = Storage(uri), fails, fate
        self.tries: list[int] = []
        self.urls: list[str] = []
        self.rows: list[tuple[str, str | None]] = []
        self.shards: dict[int, list[str]] = {}

    def run(self, tasks: Iterator[TableSlice], is_retry: bool) -> Iterator[tuple[int, VerifiedShard]]:
        for task in tasks:
            yield task.index, self._make(task)

    def _make(self, task: TableSlice) -> VerifiedShard:
        index = task.index
        self.tries.append(index)
        if self._fails(index, self.tries.count(index)):
            raise StepError(f"shard {shard_stem(index)} is refused")
        urls = [url or "" for url in task.urls]
        self.urls += urls
        self.rows += zip(urls, task.captions, strict=True)
        self.shards[index] = urls
        rows = [(self._fate(url), url, caption or "") for url, caption in zip(urls, task.captions, strict=True)]
        causes = [cause for cause, _, _ in rows if cause]
        shard = VerifiedShard(
            name=f"{shard_stem(index)}.tar",
            rows=len(rows),
            samples=len(rows) - len(causes),
            bytes=3,
            sha256="",
            failed=dict(Counter(causes)),
        )
        self._storage.write(shard.name, b"tar")
        shard_tables.write_fates(self._storage, index, rows)
        shard_tables.write_samples(self._storage, index, [url for cause, url, _ in rows if cause is None])
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
    assert pool.shards == {0: ["a", "b", "c"], 1: ["d", "e", "f"], 2: ["g"]}
    ledger = manifest.ledger
    assert (ledger.rows, ledger.tried, ledger.kept) == (10, 7, 7)
    assert (ledger.failed, ledger.filtered, ledger.sample_yield) == ({"no_url": 1}, {"duplicate": 2}, 0.875)
    assert [shard.name for shard in manifest.shards] == ["00000.tar", "00001.tar", "00002.tar"]


def test_a_disk_too_small_for_the_table_is_refused_with_the_keys(
    arguments: DownloadArguments, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = spilled_bytes(10, "exact")
    assert needed == 10 * (ROW.itemsize + FATE.itemsize + STATE.itemsize + SAMPLE.itemsize + LOOK.itemsize + 2)
    for free in (needed, needed - 1):
        monkeypatch.setattr("shutil.disk_usage", lambda path, free=free: SimpleNamespace(free=free))
        with (
            nullcontext() if free == needed else pytest.raises(StepError, match=r"download.job.volume_size_gb.*TMPDIR")
        ):
            Collection(arguments)


def test_a_second_run_makes_only_what_is_missing(arguments: DownloadArguments) -> None:
    collection = Collection(arguments)
    first = collect(arguments, Pool(collection, arguments.shards_uri), collection)
    storage = Storage(arguments.shards_uri)
    storage.write("00000.tar", b"cut short")
    storage.write("00001.verified.json", b"{")
    again = Collection(arguments)
    pool = Pool(again, arguments.shards_uri)
    assert collect(arguments, pool, again) == first
    assert sorted(pool.tries) == [0, 1] and pool.shards[1] == ["d", "e", "f"]


def test_a_finished_collection_asks_for_nothing(arguments: DownloadArguments) -> None:
    collection = Collection(arguments)
    collect(arguments, Pool(collection, arguments.shards_uri), collection)
    pool = Pool(collection, arguments.shards_uri)
    collect(arguments, pool, collection)
    assert pool.tries == []


@pytest.mark.parametrize("change", [{"image_size_px": 128}, {"jpeg_quality": 80}, {"resize_mode": "keep_ratio"}])
def test_shards_of_other_bytes_do_not_count(arguments: DownloadArguments, change: dict[str, object]) -> None:
    collection = Collection(arguments)
    collect(arguments, Pool(collection, arguments.shards_uri), collection)
    assert Collection(arguments.model_copy(update=change)).finished() == {}
    others = {"threads": 1, "contact": "a@b.c", "dedup": "perceptual", "samples_per_shard": 4, "max_body_mb": 1}
    assert len(Collection(arguments.model_copy(update=others)).finished()) == 3


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
    with pytest.raises(StepError, match="9 fates are accounted for, the url table has 10 rows"):
        collection.manifest(shards)


def test_a_top_up_tries_only_what_failed_for_a_reason_that_can_pass(arguments: DownloadArguments) -> None:
    collection = Collection(arguments)
    causes = {"a": "timeout", "c": "http_404", "e": "http_503", "g": "timeout"}
    shards = collect(arguments, Pool(collection, arguments.shards_uri, fate=causes.get), collection)
    lenient = Collection(arguments.model_copy(update={"min_yield": 0.0}))
    assert lenient.finished() == shards
    ledgers = [lenient.manifest(shards).ledger]
    for top_up in (1, 2):
        causes.pop("e", None)
        again = Collection(arguments.model_copy(update={"top_up": top_up, "min_yield": 0.0}))
        pool = Pool(again, arguments.shards_uri, fate=causes.get)
        found = collect(arguments, pool, again)
        assert pool.urls == (["a", "e", "g"] if top_up == 1 else ["a", "g"])
        ledgers.append(again.manifest(found).ledger)
        assert not again.rows_left(found)
    assert [ledger.failed for ledger in ledgers] == [
        {"http_404": 1, "http_503": 1, "no_url": 1, "timeout": 2},
        {"http_404": 1, "no_url": 1, "timeout": 2},
        {"http_404": 1, "no_url": 1, "timeout": 2},
    ]
    assert [ledger.kept for ledger in ledgers] == [3, 4, 4]
    assert {(ledger.rows, ledger.tried) for ledger in ledgers} == {(10, 7)}


def test_a_broken_top_up_goes_on_where_it_was(arguments: DownloadArguments) -> None:
    first = Collection(arguments)
    collect(arguments, Pool(first, arguments.shards_uri, fate=lambda url: "timeout"), first)
    again = Collection(arguments.model_copy(update={"top_up": 1}))
    with pytest.raises(StepError, match="shard 00004"):
        collect(arguments, Pool(again, arguments.shards_uri, lambda index, _: index == 4), again)
    pool = Pool(again, arguments.shards_uri)
    assert again.manifest(collect(arguments, pool, again)).ledger.kept == 7
    assert set(pool.tries) < {3, 4, 5} and pool.shards[4] == ["d", "e", "f"]


def test_copies_of_a_picture_count_once_and_a_laxer_setting_brings_them_back(arguments: DownloadArguments) -> None:
    collection = Collection(arguments)
    shards = collect(arguments, Pool(collection, arguments.shards_uri), collection)
    storage = Storage(arguments.shards_uri)
    shard_tables.write_samples(storage, 2, ["b"])
    manifest = collection.manifest(shards)
    assert (manifest.ledger.kept, manifest.ledger.filtered) == (6, {"duplicate": 2, "duplicate_picture": 1})
    assert (manifest.shards[2].samples, manifest.shards[2].dropped) == (0, {"duplicate_picture": 1})
    assert read_table(storage, "00002.tar").captions == []
    lax = Collection(arguments.model_copy(update={"dedup": "url"}))
    assert lax.manifest(lax.finished()).ledger.kept == 7
    assert read_table(storage, "00002.tar").captions == ["b"]


def run(arguments: DownloadArguments, **changes: object) -> tuple[ShardsManifest, list[str]]:
    """Return the manifest of a download with other settings, and what it fetched."""
    settings = DownloadArguments.model_validate({**arguments.model_dump(), "min_yield": 0.0, **changes})
    collection = Collection(settings)
    pool = Pool(collection, arguments.shards_uri)
    return collection.manifest(collect(settings, pool, collection)), pool.urls


def captions(arguments: DownloadArguments, manifest: ShardsManifest) -> list[str]:
    """Return what Encode reads."""
    storage = Storage(arguments.shards_uri)
    return [caption for shard in manifest.shards for caption in read_table(storage, shard.name).captions]


@pytest.fixture
def scored(tmp_path: Path) -> DownloadArguments:
    table = {"url": list("abcdefgh"), "caption": list("ABCDEFGH"), "aesthetic": [1.0, 2, 3, 4, 5, 6, 7, 8]}
    pq.write_table(pa.table(table), tmp_path / "scored.parquet")
    return DownloadArguments(
        url_table=str(tmp_path / "scored.parquet"), shards_uri=str(tmp_path / "scored"), samples_per_shard=3
    )


def test_a_raised_max_rows_and_a_longer_table_fetch_what_is_new(scored: DownloadArguments) -> None:
    assert run(scored, max_rows=2)[1] == ["a", "b"]
    assert run(scored, max_rows=4)[1] == ["c", "d"]
    table = pq.read_table(scored.url_table)
    more = pa.table({"url": ["y", "z"], "caption": ["Y", "Z"], "aesthetic": [9.0, 9.0]})
    pq.write_table(pa.concat_tables([more.slice(0, 1), table, more.slice(1)]), scored.url_table)
    manifest, fetched = run(scored)
    assert fetched == ["y", "e", "f", "g", "h", "z"]
    assert (manifest.ledger.rows, manifest.ledger.kept) == (10, 10)
    assert run(scored)[1] == []


def test_another_threshold_fetches_what_it_admits_alone_and_marks_what_it_leaves_out(scored: DownloadArguments) -> None:
    assert run(scored, min_aesthetic_score=5)[1] == ["e", "f", "g", "h"]
    stricter, fetched = run(scored, min_aesthetic_score=7)
    assert (fetched, stricter.ledger.kept, stricter.ledger.filtered) == ([], 2, {"aesthetic": 6})
    assert captions(scored, stricter) == ["g", "h"]
    assert stricter.shards[0].dropped == {"aesthetic": 2}
    laxer, fetched = run(scored, min_aesthetic_score=4)
    assert (fetched, laxer.ledger.kept, captions(scored, laxer)) == (["d"], 5, ["e", "f", "g", "h", "d"])
    again, fetched = run(scored, min_aesthetic_score=5)
    assert (fetched, captions(scored, again)) == ([], ["e", "f", "g", "h"])


def test_a_row_that_left_the_table_is_marked_and_one_with_another_caption_is_fetched(scored: DownloadArguments) -> None:
    run(scored)
    table = pq.read_table(scored.url_table)
    changed = pa.table({"url": ["b"], "caption": ["another"], "aesthetic": [2.0]})
    pq.write_table(pa.concat_tables([table.slice(2), changed]), scored.url_table)
    manifest, fetched = run(scored)
    assert fetched == ["b"] and manifest.ledger.kept == manifest.ledger.rows == 7
    assert manifest.shards[0].dropped == {"not_in_table": 2}


def test_sizes_are_judged_without_fetching_and_laxer_limits_fetch_what_was_refused(
    scored: DownloadArguments,
) -> None:
    refused = {"a": "too_small", "b": "body_too_large", "c": "disallowed", "d": "too_small"}
    collection = Collection(scored)
    collect(scored, Pool(collection, scored.shards_uri, fate=refused.get), collection)
    # The pictures of the pool are 300 px wide and high.
    stricter, fetched = run(scored, min_image_size_px=301)
    assert (fetched, stricter.ledger.kept) == ([], 0)
    assert stricter.ledger.filtered == {"too_small": 6} and stricter.ledger.failed == {
        "body_too_large": 1,
        "disallowed": 1,
    }
    assert run(scored, max_body_mb=64)[1] == ["b"]
    assert run(scored, max_body_mb=64, upscale=True)[1] == ["a", "d"]
    assert run(scored, max_body_mb=64, upscale=True, ignored_opt_outs=("content-usage",))[1] == ["c"]
    assert run(scored, max_body_mb=16)[1] == []


def test_a_blocklist_marks_what_was_fetched_before_it(scored: DownloadArguments, tmp_path: Path) -> None:
    run(scored)
    (tmp_path / "blocklist").write_text(f"sha256: {hashlib.sha256(b'c').hexdigest()}")
    manifest, fetched = run(scored, blocklist_uri=str(tmp_path / "blocklist"))
    assert (fetched, manifest.ledger.filtered) == ([], {"blocked_picture": 1})
    assert run(scored)[0].ledger.kept == 8


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 8), st.integers(0, 40)), min_size=1, max_size=5))
@settings(max_examples=25, deadline=None)
def test_however_it_came_there_a_collection_has_what_its_settings_ask_for_and_no_row_is_fetched_twice(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[int, int, int]]
) -> None:
    folder = tmp_path_factory.mktemp("grown")
    scores = [float(number * 7 % 10) for number in range(40)]
    table = {"url": [f"u{row % 30}" for row in range(40)], "caption": [f"c{row}" for row in range(40)]}
    pq.write_table(pa.table({**table, "aesthetic": scores}), folder / "t.parquet")
    arguments = DownloadArguments(
        url_table=str(folder / "t.parquet"),
        shards_uri=str(folder / "shards"),
        samples_per_shard=4,
        dedup="url",
        min_yield=0,
    )
    fetched: list[tuple[str, str | None]] = []
    for least, most_rows, breaks in steps:
        changes = {"min_aesthetic_score": least, "max_rows": most_rows * 5}
        changed = arguments.model_copy(update=changes)
        broken = Pool(Collection(changed), arguments.shards_uri, lambda index, _, breaks=breaks: index == breaks)
        with suppress(StepError):
            collect(changed, broken, Collection(changed))
        whole, collection = Pool(Collection(changed), arguments.shards_uri), Collection(changed)
        manifest = collection.manifest(collect(changed, whole, collection))
        fetched += [*broken.rows, *whole.rows]
        rows = [row for row in range(most_rows * 5 or 40) if scores[row] >= least]
        wanted = {table["url"][row] for row in rows}
        assert sorted(captions(arguments, manifest)) == sorted(wanted)
        assert manifest.ledger.kept == len(wanted)
    assert len(fetched) == len(set(fetched))


def made_by_release_0_1(collection: Collection, uri: str) -> None:
    """Give the shards that are there the name that release 0.1.0 gave them."""
    storage = Storage(uri)
    for name in storage.sizes():
        if name.endswith(".verified.json"):
            record = ShardRecord.model_validate_json(storage.read(name))
            old = {"plan_digest": collection._former_digest, "shard": json.loads(record.shard.model_dump_json())}
            storage.write(name, json.dumps(old).encode())


def test_shards_of_release_0_1_are_kept_and_so_is_their_manifest(arguments: DownloadArguments) -> None:
    collection = Collection(arguments)
    collect(arguments, Pool(collection, arguments.shards_uri), collection)
    made_by_release_0_1(collection, arguments.shards_uri)
    again = Collection(arguments)
    shards = again.finished()
    assert not again.rows_left(shards)
    manifest = again.manifest(shards)
    assert manifest.plan_digest == again.artifact.former_digest != again.artifact.digest
    assert "treated" not in manifest.model_dump_json()
    Storage(arguments.shards_uri).write(MANIFEST_FILE, manifest.model_dump_json().encode())
    again.artifact.begin()
    assert Storage(arguments.shards_uri).size(MANIFEST_FILE)


def test_what_is_missing_beside_shards_of_release_0_1_is_made_by_the_new_reader(arguments: DownloadArguments) -> None:
    collection = Collection(arguments)
    collect(arguments, Pool(collection, arguments.shards_uri), collection)
    made_by_release_0_1(collection, arguments.shards_uri)
    Storage(arguments.shards_uri).delete("00001.verified.json")
    again = Collection(arguments)
    pool = Pool(again, arguments.shards_uri)
    assert again.manifest(collect(arguments, pool, again)).plan_digest == again.artifact.digest
    assert pool.tries == [1]


def test_shards_of_release_0_1_stay_when_the_table_grows_and_thresholds_change(scored: DownloadArguments) -> None:
    few = scored.model_copy(update={"max_rows": 4})
    collection = Collection(few)
    collect(few, Pool(collection, few.shards_uri), collection)
    made_by_release_0_1(collection, few.shards_uri)
    assert run(scored, max_rows=6, min_aesthetic_score=2)[1] == ["e", "f"]
    # Recognised once, its shards are known by their name.
    manifest, fetched = run(scored, min_aesthetic_score=3)
    assert (fetched, captions(scored, manifest)) == (["g", "h"], list("cdefgh"))
