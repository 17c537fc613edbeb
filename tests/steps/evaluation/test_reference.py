"""The held-out pictures are read as the manifest lists them."""

import tarfile
from pathlib import Path

import numpy as np
import pytest

from steps.errors import StepError
from steps.evaluation.reference import Reference
from tests.steps.evaluation.conftest import CAPTIONS, SIZE_PX, MakeReference, add, picture


def test_captions_and_pictures_stay_together(make_reference: MakeReference) -> None:
    reference = Reference(make_reference())
    assert len(reference) == len(CAPTIONS)
    assert sorted(reference.captions) == sorted(CAPTIONS)
    rows = [3, 17, 0]
    for row, pixels in zip(rows, reference.read(rows), strict=True):
        original = np.asarray(picture(CAPTIONS.index(reference.captions[row])), dtype=int)
        assert np.abs(pixels - original).mean() < 12  # JPEG at 16 px


def test_a_picture_of_another_size_is_resized(make_reference: MakeReference) -> None:
    assert Reference(make_reference(size_px=24)).read([0]).shape == (1, SIZE_PX, SIZE_PX, 3)


def test_a_shard_that_the_manifest_does_not_list_is_not_read(make_reference: MakeReference) -> None:
    folder = make_reference()
    with tarfile.open(folder / "reference-00009.tar", "w") as tar:
        add(tar, "stray.txt", b"stray")
    assert len(Reference(folder)) == len(CAPTIONS)


def test_a_missing_manifest_is_named(tmp_path: Path) -> None:
    with pytest.raises(StepError, match=r"manifest\.json: missing; evaluate needs the held-out pictures"):
        Reference(tmp_path)


@pytest.mark.parametrize("content", ["{", "[]", '{"shards": []}', '{"resolution_px": 64, "shards": ["a.tar"]}'])
def test_another_kind_of_manifest_is_refused(make_reference: MakeReference, content: str) -> None:
    folder = make_reference()
    (folder / "manifest.json").write_text(content)
    with pytest.raises(StepError, match=r"manifest\.json: not the manifest of a reference"):
        Reference(folder)


def test_a_damaged_shard_is_named(make_reference: MakeReference) -> None:
    folder = make_reference()
    (folder / "reference-00001.tar").write_bytes(b"no archive" * 100)
    with pytest.raises(StepError, match=r"reference-00001\.tar: cannot be read"):
        Reference(folder)


def test_a_missing_shard_is_named(make_reference: MakeReference) -> None:
    folder = make_reference()
    (folder / "reference-00001.tar").unlink()
    with pytest.raises(StepError, match=r"reference-00001\.tar: the manifest lists it"):
        Reference(folder)


def test_an_empty_reference_is_refused_with_the_setting_to_change(make_reference: MakeReference) -> None:
    with pytest.raises(StepError, match=r"holds no pictures; raise encode\.heldout_fraction"):
        Reference(make_reference(count=0))


def test_a_sample_without_a_caption_is_named(make_reference: MakeReference) -> None:
    folder = make_reference()
    with tarfile.open(folder / "reference-00001.tar", "a") as tar:
        add(tar, "000099.jpg", b"")
    with pytest.raises(StepError, match="sample 000099 lacks its picture or its caption"):
        Reference(folder)


def test_a_damaged_picture_is_named(make_reference: MakeReference) -> None:
    folder = make_reference()
    with tarfile.open(folder / "reference-00001.tar", "a") as tar:
        add(tar, "000099.jpg", b"no picture")
        add(tar, "000099.txt", b"a caption")
    with pytest.raises(StepError, match=r"000099\.jpg: its picture cannot be decoded"):
        Reference(folder).read([len(CAPTIONS)])
