"""Generated pictures are kept, found again, and never mixed up with another generation's."""

from pathlib import Path

import numpy as np
import pytest

from steps.evaluation.pictures import PictureStore
from steps.evaluation.reference import Pictures

GENERATION = {"model_digest": "a", "guidance_scale": 3.0}


@pytest.fixture
def pictures() -> Pictures:
    return np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)


def test_pictures_come_back_bit_for_bit(tmp_path: Path, pictures: Pictures) -> None:
    store = PictureStore(tmp_path / "samples", GENERATION)
    store.write([0, 1, 7], pictures)
    assert np.array_equal(store.read([7, 0]), pictures[[2, 0]])


def test_only_what_is_not_there_is_missing(tmp_path: Path, pictures: Pictures) -> None:
    PictureStore(tmp_path, GENERATION).write([0, 1, 7], pictures)
    (tmp_path / ".000002.png.123.4.partial").write_bytes(b"half of a picture")
    assert PictureStore(tmp_path, GENERATION).missing(range(9)) == [2, 3, 4, 5, 6, 8]


def test_pictures_of_another_model_are_deleted(tmp_path: Path, pictures: Pictures) -> None:
    PictureStore(tmp_path, GENERATION).write([0, 1, 7], pictures)
    (tmp_path / "untrained").mkdir()
    (tmp_path / "untrained" / "000000.png").touch()
    other = PictureStore(tmp_path, {**GENERATION, "model_digest": "b"})
    assert other.missing(range(9)) == list(range(9))
    assert (tmp_path / "untrained" / "000000.png").exists()


def test_a_job_on_another_host_goes_on_from_the_mirror(tmp_path: Path, pictures: Pictures) -> None:
    mirror = f"file://{tmp_path}/mirror"
    PictureStore(tmp_path / "first", GENERATION, mirror).write([0, 1, 7], pictures)
    store = PictureStore(tmp_path / "second", GENERATION, mirror)
    store.restore(range(6))
    assert store.missing(range(9)) == [2, 3, 4, 5, 6, 7, 8], "7 was not asked for"
    assert np.array_equal(store.read([0, 1]), pictures[:2])


def test_waiting_ends_when_the_other_hosts_pictures_are_there(tmp_path: Path, pictures: Pictures) -> None:
    mirror = f"file://{tmp_path}/mirror"
    head, other = (PictureStore(tmp_path / name, GENERATION, mirror) for name in ("head", "other"))
    head.write([0], pictures[:1])
    seen: list[int] = []

    def other_host_draws() -> None:
        seen.append(3 - len(head.missing([0, 1, 2])))
        if len(seen) < 3:
            other.write([len(seen)], pictures[len(seen)][None])

    head.wait([0, 1, 2], other_host_draws, poll_s=0.0)
    assert seen == [1, 2, 3]
    assert np.array_equal(head.read([0, 1, 2]), pictures)
