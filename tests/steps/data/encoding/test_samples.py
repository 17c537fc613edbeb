import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from params.heldout import is_heldout
from steps.data.encoding import samples as module
from steps.data.encoding.samples import read_samples, read_table, requests
from steps.data.parquet import read_parquet
from steps.data.shards.verification import write_samples
from steps.data.storage import Storage
from steps.errors import StepError
from tests.steps.data.shapes_shards import write_shards


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    write_shards(str(tmp_path), [12])
    return Storage(str(tmp_path))


@pytest.mark.parametrize("gap", [0, 1 << 20])
def test_samples_are_read_by_their_place(storage: Storage, monkeypatch: pytest.MonkeyPatch, gap: int) -> None:
    monkeypatch.setattr(module, "MERGED_GAP_BYTES", gap)
    table = read_table(storage, "00000.tar")
    rows = np.array([0, 1, 4, 11])
    samples = list(read_samples(storage, table, rows))
    assert [sample.key for sample in samples] == [table.keys[row] for row in rows]
    assert [sample.caption for sample in samples] == [table.captions[row] for row in rows]
    assert all(sample.picture.startswith(b"\xff\xd8") and sample.picture in sample.raw for sample in samples)


def test_near_samples_share_a_request(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    requests: list[tuple[int, int]] = []
    read = Storage.read_range

    def counted(self: Storage, name: str, start: int, stop: int) -> bytes:
        requests.append((start, stop))
        return read(self, name, start, stop)

    monkeypatch.setattr(Storage, "read_range", counted)
    list(read_samples(storage, read_table(storage, "00000.tar"), np.arange(12)))
    assert len(requests) == 1


def test_a_request_is_for_no_more_than_a_reader_holds(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    table = read_table(storage, "00000.tar")
    monkeypatch.setattr(module, "REQUEST_BYTES", 2 * int(table.stops[0]))
    groups = list(requests(table, np.arange(12)))
    assert len(groups) > 2 and np.concatenate(groups).tolist() == list(range(12))
    assert all(table.starts[group[-1]] - table.starts[group[0]] < module.REQUEST_BYTES for group in groups)


def test_a_missing_table_or_shard_is_named(storage: Storage) -> None:
    table = read_table(storage, "00000.tar")
    storage.delete("00000.tar")
    with pytest.raises(StepError, match=r"00000\.tar: not the shard that was verified"):
        list(read_samples(storage, table, np.array([0])))
    with pytest.raises(StepError, match=r"00007\.samples\.parquet: not there"):
        read_table(storage, "00007.tar")


def test_a_shard_that_was_replaced_is_refused(storage: Storage, tmp_path: Path) -> None:
    table = read_table(storage, "00000.tar")
    write_shards(str(tmp_path / "other"), [12], step=19)
    storage.write("00000.tar", (tmp_path / "other" / "00000.tar").read_bytes())
    with pytest.raises(StepError, match="not the shard that was verified"):
        list(read_samples(storage, table, np.arange(12)))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_bit_that_flipped_in_a_shard_is_found_and_its_sample_is_named(storage: Storage, data: st.DataObject) -> None:
    table = read_table(storage, "00000.tar")
    row = data.draw(st.integers(0, 11), "row")
    place = data.draw(st.integers(int(table.starts[row]), int(table.stops[row]) - 1), "byte")
    content = bytearray(storage.read("00000.tar"))
    content[place] ^= 1 << data.draw(st.integers(0, 7), "bit")
    other = Storage(f"{storage.uri}-flipped")
    other.write("00000.tar", bytes(content))
    with pytest.raises(StepError, match=rf"00000\.tar: not the shard that was verified .*sample {table.keys[row]} "):
        list(read_samples(other, table, np.arange(12)))
    assert len(list(read_samples(other, table, np.setdiff1d(np.arange(12), [row])))) == 11


def test_a_table_of_samples_without_checksums_is_refused(storage: Storage) -> None:
    table = read_parquet(storage.read("00000.samples.parquet"))
    write_samples(storage, "00000", table.drop_columns(["xxh3"]))
    with pytest.raises(StepError, match=r"00000\.samples\.parquet: has no checksums"):
        read_table(storage, "00000.tar")


def test_captions_are_held_out_by_their_hash() -> None:
    number = int.from_bytes(hashlib.sha256(b"a caption").digest()[:8], "big") / 2**64
    assert is_heldout("a caption", number + 0.01) and not is_heldout("a caption", number - 0.01)
    texts = [f"caption {index}" for index in range(4000)]
    assert 0.08 < sum(is_heldout(text, 0.1) for text in texts) / 4000 < 0.12
    assert not any(is_heldout(text, 0.0) for text in texts)


def test_a_picture_with_several_captions_is_a_sample_for_each_of_them(storage: Storage) -> None:
    before = read_table(storage, "00000.tar")
    table = read_parquet(storage.read("00000.samples.parquet"))
    captions = [[caption, f"another of {row}"][: 1 + row % 2] for row, caption in enumerate(before.captions)]
    write_samples(storage, "00000", table.append_column("captions", pa.array(captions, pa.list_(pa.string()))))
    several = read_table(storage, "00000.tar")
    assert several.captions == [caption for row in captions for caption in row]
    assert several.named_by == [row[0] for row in captions for _ in row]
    rows = np.arange(len(several.captions))
    read = list(read_samples(storage, several, rows))
    assert [sample.caption for sample in read] == several.captions
    assert len({sample.picture for sample in read}) == 12
