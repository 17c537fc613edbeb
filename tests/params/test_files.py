"""A file is whole or absent, whatever happens while it is written."""

import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

import pytest

from params.files import PARTIAL, file_digest, whole_file, write_bytes, write_json, write_text


@pytest.mark.parametrize("synced", [False, True])
def test_a_file_appears_in_a_new_folder_and_leaves_nothing_else(tmp_path: Path, synced: bool) -> None:
    write_text(tmp_path / "a" / "b.txt", "größe\n", synced)
    assert (tmp_path / "a" / "b.txt").read_bytes() == "größe\n".encode()
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b.txt"]


def test_json_is_indented_and_ends_its_line(tmp_path: Path) -> None:
    write_json(tmp_path / "value.json", {"a": 1})
    assert (tmp_path / "value.json").read_text() == '{\n  "a": 1\n}\n'


def test_after_an_error_the_file_before_stays_alone(tmp_path: Path) -> None:
    path = tmp_path / "value"
    write_bytes(path, b"before")
    with pytest.raises(RuntimeError), whole_file(path) as partial:
        partial.write_bytes(b"half")
        raise RuntimeError
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


def test_permissions_are_those_of_a_plain_write(tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(b"")
    write_bytes(tmp_path / "whole", b"")
    assert (tmp_path / "whole").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_kill_leaves_the_file_before_and_a_hidden_partial_one(tmp_path: Path) -> None:
    path = tmp_path / "000001.png"
    write_bytes(path, b"before")
    program = (
        "import os, sys, pathlib; from params.files import whole_file\n"
        "with whole_file(pathlib.Path(sys.argv[1])) as partial:\n"
        "    partial.write_bytes(b'half'); os.kill(os.getpid(), 9)\n"
    )
    killed = subprocess.run([sys.executable, "-c", program, str(path)], cwd=Path(__file__).parents[2])
    assert killed.returncode == -signal.SIGKILL
    assert path.read_bytes() == b"before"
    (left,) = [other for other in tmp_path.iterdir() if other != path]
    assert left.name.startswith(".000001.png.") and left.name.endswith(PARTIAL)


def test_writers_of_one_file_do_not_mix(tmp_path: Path) -> None:
    path = tmp_path / "value"
    contents = [bytes([number]) * 100_000 for number in range(16)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda content: write_bytes(path, content), contents))
    assert path.read_bytes() in contents
    assert list(tmp_path.iterdir()) == [path]


def test_a_digest_is_that_of_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 1_000_000)
    assert file_digest(tmp_path / "file") == sha256(b"x" * 1_000_000).hexdigest()
