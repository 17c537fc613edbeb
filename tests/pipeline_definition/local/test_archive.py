import io
import os
import random
import tarfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline_definition.local.archive import extract_archive, merged_files, write_archive
from pipeline_definition.local.errors import StepFailureError


def folder(root: Path, **files: str) -> Path:
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def archive_of(path: Path, *members: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for member in members:
            archive.addfile(member, io.BytesIO(b"x" * member.size))
    return path


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "", size: int = 0) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, target, size
    return info


def test_the_same_files_give_the_same_bytes(tmp_path: Path) -> None:
    first = folder(tmp_path / "1", a="a", deep__b="b")
    second = folder(tmp_path / "2", deep__b="b", a="a")
    os.utime(second / "a", (1, 1))
    for number, source in enumerate((first, second)):
        write_archive(tmp_path / f"{number}.tar.gz", merged_files([source]))
    assert (tmp_path / "0.tar.gz").read_bytes() == (tmp_path / "1.tar.gz").read_bytes()


def test_what_was_packed_is_unpacked(tmp_path: Path) -> None:
    write_archive(tmp_path / "x.tar.gz", merged_files([folder(tmp_path / "1", a="a", deep__b="b")]))
    extract_archive(tmp_path / "x.tar.gz", tmp_path / "out")
    assert (tmp_path / "out" / "deep" / "b").read_text() == "b"


def test_the_first_hosts_file_wins(tmp_path: Path) -> None:
    hosts = [folder(tmp_path / "1", a="first"), folder(tmp_path / "2", a="second", b="only")]
    assert {name: path.read_text() for name, path in merged_files(hosts).items()} == {"a": "first", "b": "only"}


@pytest.mark.parametrize(
    "bad",
    [
        member("../evil", size=1),
        member("/evil", size=1),
        member("deep/../../evil", size=1),
        member("link", tarfile.SYMTYPE, "/etc/passwd"),
        member("link", tarfile.LNKTYPE, "../evil"),
        member("device", tarfile.CHRTYPE),
    ],
)
def test_a_member_that_leads_out_is_refused_and_nothing_lands_outside(tmp_path: Path, bad: tarfile.TarInfo) -> None:
    path = archive_of(tmp_path / "bad.tar.gz", bad)
    target = tmp_path / "a" / "b"
    try:
        extract_archive(path, target)
    except StepFailureError as error:
        assert "bad.tar.gz" in error.reason
    else:
        assert (target / "evil").is_file()  # an absolute name is taken as a relative one
    outside = [p for p in tmp_path.rglob("*") if p.is_file() and not p.is_relative_to(target)]
    assert outside == [path]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), cut=st.booleans())
def test_a_flipped_bit_or_a_cut_anywhere_is_found_and_the_archive_named(
    tmp_path: Path, place: float, bit: int, cut: bool
) -> None:
    (tmp_path / "weights").write_bytes(random.Random(1).randbytes(70_000))
    write_archive(tmp_path / "model.tar.gz", {"unet/weights": tmp_path / "weights"})
    content = bytearray((tmp_path / "model.tar.gz").read_bytes())
    byte = int(place * len(content))
    content[byte] ^= 1 << bit
    (tmp_path / "model.tar.gz").write_bytes(bytes(content[:byte] if cut else content))
    try:
        extract_archive(tmp_path / "model.tar.gz", tmp_path / "out")
    except StepFailureError as error:
        assert "model.tar.gz cannot be unpacked" in error.reason
    else:
        # Ten bytes of a gzip header: some of their bits, such as the time, say nothing of what is in it.
        assert not cut and byte < 10
        assert (tmp_path / "out" / "unet" / "weights").read_bytes() == (tmp_path / "weights").read_bytes()


def test_a_broken_archive_is_named(tmp_path: Path) -> None:
    (tmp_path / "model.tar.gz").write_bytes(b"\x1f\x8bnonsense")
    with pytest.raises(StepFailureError, match=r"model\.tar\.gz cannot be unpacked"):
        extract_archive(tmp_path / "model.tar.gz", tmp_path / "out")


def test_a_program_can_still_be_run_after_it_was_unpacked(tmp_path: Path) -> None:
    for name, mode in (("run.sh", 0o755), ("weights", 0o640)):
        (tmp_path / name).write_text("#!")
        (tmp_path / name).chmod(mode)
    write_archive(tmp_path / "model.tar.gz", {name: tmp_path / name for name in ("run.sh", "weights")})
    with tarfile.open(tmp_path / "model.tar.gz") as archive:
        assert {member.name: member.mode for member in archive} == {"run.sh": 0o755, "weights": 0o644}
