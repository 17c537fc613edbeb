import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from steps.data.causes import FetchError
from steps.data.fetching.address import AddressGuard
from steps.data.fetching.host_names import HostNames
from steps.data.pictures.perceptual_hash import perceptual_hash
from steps.data.shards.blocklist import Blocklist, read_blocklist
from steps.errors import StepError
from tests.steps.data.web import picture


def textured(number: int) -> Image.Image:
    """A picture of blots: of gradients and symmetric drawings, most of what pHash looks at is zero."""
    blots = np.random.default_rng(number).integers(0, 256, (12, 12, 3), np.uint8)
    return Image.fromarray(blots).resize((160, 160), Image.Resampling.BICUBIC)


def smaller(whole: Image.Image) -> Image.Image:
    """The same picture at another size and compression."""
    buffer = io.BytesIO()
    whole.resize((72, 72)).save(buffer, "WEBP", quality=80)
    return Image.open(buffer)


def write(folder: Path, *lines: str) -> str:
    (folder / "blocklist.txt").write_text("\n".join(lines))
    return str(folder / "blocklist.txt")


def test_a_picture_is_known_by_its_bytes(tmp_path: Path) -> None:
    uri = write(tmp_path, "# taken down", f"sha256: {hashlib.sha256(picture(1)).hexdigest().upper()}  # 2026-11-01", "")
    blocklist = read_blocklist(uri)
    assert blocklist.has(picture(1))
    assert not blocklist.has(picture(2))


def test_a_picture_is_known_by_its_look_in_another_size_and_format(tmp_path: Path) -> None:
    known, other = (textured(number) for number in (0, 1))
    uri = write(tmp_path, f"phash:{perceptual_hash(np.asarray(known)):016x}")
    assert read_blocklist(uri, max_distance=3).has_look(perceptual_hash(np.asarray(smaller(known))))
    assert not read_blocklist(uri, max_distance=3).has_look(perceptual_hash(np.asarray(other)))
    assert not read_blocklist(uri).has_look(None)


def test_hosts_are_blocked_with_all_below_them_before_they_are_resolved(tmp_path: Path) -> None:
    blocklist = read_blocklist(write(tmp_path, "host: Pictures.example"))
    guard = AddressGuard(names=HostNames(ask=lambda name: []), blocked_hosts=blocklist.hosts)
    for host in ("pictures.example", "a.b.PICTURES.example", "pictures.example."):
        with pytest.raises(FetchError, match="blocked_host"):
            guard.addresses(host, 80)
    with pytest.raises(OSError, match="has no address"):
        guard.addresses("otherpictures.example", 80)


def test_no_address_is_an_empty_list() -> None:
    assert read_blocklist("").digest == Blocklist().digest == ""
    assert not read_blocklist("").has(picture(1))


def test_a_line_that_is_no_entry_is_named(tmp_path: Path) -> None:
    with pytest.raises(StepError, match=r"line 2: 'sha256: 12' is not host:, sha256: or phash:"):
        read_blocklist(write(tmp_path, "host: a", "sha256: 12"))
    with pytest.raises(StepError, match=r"blocklist: .*nothing cannot be read"):
        read_blocklist(str(tmp_path / "nothing"))
