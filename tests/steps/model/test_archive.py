"""A model archive is unpacked, or refused before it does harm."""

import gzip
import io
import random
import tarfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from steps.errors import StepError
from steps.model.archive import unpack_model


def pack(path: Path, *members: tarfile.TarInfo, content: bytes = b"") -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for member in members:
            tar.addfile(member, io.BytesIO(content.ljust(member.size, b" ")))
    return path


def file(name: str, size: int = 2) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size = size
    return member


def link(name: str, target: str, kind: bytes) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


def pipeline(path: Path) -> Path:
    incompressible = random.Random(1).randbytes(70_000)
    return pack(path, file("model_index.json"), file("unet/weights.safetensors", 70_000), content=incompressible)


def test_a_pipeline_is_unpacked_in_place_of_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "stale").touch()
    unpack_model(pipeline(tmp_path / "model.tar.gz"), tmp_path / "model")
    unpacked = {str(path.relative_to(tmp_path / "model")) for path in (tmp_path / "model").rglob("*")}
    assert unpacked == {"model_index.json", "unet", "unet/weights.safetensors"}


def test_a_missing_archive_is_named(tmp_path: Path) -> None:
    with pytest.raises(StepError, match=r"model\.tar\.gz: no model archive"):
        unpack_model(tmp_path / "model.tar.gz", tmp_path / "model")


def test_an_archive_without_a_pipeline_is_refused(tmp_path: Path) -> None:
    archive = pack(tmp_path / "model.tar.gz", file("weights.bin"))
    with pytest.raises(StepError, match=r"holds no model_index\.json"):
        unpack_model(archive, tmp_path / "model")


@pytest.mark.parametrize("name", ["../evil", "/tmp/evil", "a/../../evil"])
def test_a_file_that_leads_out_of_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    archive = pack(tmp_path / "model.tar.gz", file(name.replace("/tmp", str(tmp_path))))
    with pytest.raises(StepError, match=r"cannot be unpacked|no model_index"):
        unpack_model(archive, tmp_path / "inner" / "model")
    assert not [path for path in tmp_path.rglob("evil") if not path.is_relative_to(tmp_path / "inner" / "model")]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices_are_refused(tmp_path: Path, kind: bytes) -> None:
    archive = pack(tmp_path / "model.tar.gz", link("model_index.json", "/etc/passwd", kind))
    with pytest.raises(StepError, match="neither a file nor a folder"):
        unpack_model(archive, tmp_path / "model")


def test_an_archive_that_unpacks_to_too_much_is_refused_before_it_is_written(tmp_path: Path) -> None:
    archive = pack(tmp_path / "model.tar.gz", file("a", 600), file("b", 600))
    with pytest.raises(StepError, match="more than 1000 bytes"):
        unpack_model(archive, tmp_path / "model", max_bytes=1000)
    assert not (tmp_path / "model" / "b").exists()


def test_a_header_made_to_exhaust_the_memory_is_refused(tmp_path: Path) -> None:
    header = link("././@PaxHeader", "", tarfile.XHDTYPE)
    header.size = 64 * 2**20
    (tmp_path / "model.tar.gz").write_bytes(gzip.compress(header.tobuf() + bytes(64 * 2**20), compresslevel=1))
    with pytest.raises(StepError, match="cannot be unpacked: a header of 67108864 bytes"):
        unpack_model(tmp_path / "model.tar.gz", tmp_path / "model")


def unpacked(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), cut=st.booleans())
def test_a_flipped_bit_or_a_cut_anywhere_is_found_and_the_archive_named(
    tmp_path: Path, place: float, bit: int, cut: bool
) -> None:
    whole = pipeline(tmp_path / "whole.tar.gz")
    unpack_model(whole, tmp_path / "expected")
    content = bytearray(whole.read_bytes())
    byte = int(place * len(content))
    content[byte] ^= 1 << bit
    (tmp_path / "model.tar.gz").write_bytes(bytes(content[:byte] if cut else content))
    try:
        unpack_model(tmp_path / "model.tar.gz", tmp_path / "model")
    except StepError as error:
        assert "model.tar.gz: " in str(error)
    else:
        # Ten bytes of a gzip header: some of their bits, such as the time, say nothing of what is in it.
        assert not cut and byte < 10
        assert unpacked(tmp_path / "model") == unpacked(tmp_path / "expected")


def test_a_damaged_archive_is_refused(tmp_path: Path) -> None:
    archive = pipeline(tmp_path / "model.tar.gz")
    content = archive.read_bytes()
    for damaged in (b"no archive at all", content[: len(content) // 2], content[:200] + b"damage" + content[206:]):
        archive.write_bytes(damaged)
        with pytest.raises(StepError, match="cannot be unpacked"):
            unpack_model(archive, tmp_path / "model")
