import pytest
from hypothesis import given
from hypothesis import strategies as st

from steps.data.pictures.jpeg import jpeg_structure
from tests.steps.data.drawn_pictures import app_segment, jpeg, scans_of, scene, with_segment
from tests.steps.data.picture_kinds import KINDS


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.startswith("jpeg") and "2000" not in kind])
def test_a_whole_jpeg_is_complete(kind: str) -> None:
    structure = jpeg_structure(KINDS[kind]())
    assert structure.is_complete and structure.is_decodable


def test_the_end_is_where_the_picture_ends_and_not_that_of_a_thumbnail_or_of_what_stands_behind() -> None:
    whole = with_segment(jpeg(), app_segment(1, jpeg(scene((40, 30)))))
    assert jpeg_structure(whole + jpeg(scene((40, 30)))).end == len(whole)
    assert jpeg_structure(whole[:-200]).end is None


@pytest.mark.parametrize("scans", range(10))
def test_a_progressive_jpeg_is_complete_with_its_last_scan_alone(scans: int) -> None:
    content = jpeg(progressive=True)
    assert content.count(b"\xff\xda") == 10
    structure = jpeg_structure(scans_of(content, scans) if scans else content)
    assert structure.is_complete == (not scans)
    assert structure.end is not None


def test_kinds_that_no_browser_shows_are_not_decodable() -> None:
    content = jpeg()
    frame = content.index(b"\xff\xc0")
    for marker, precision in ((0xC0, 12), (0xC3, 8), (0xC5, 8)):
        other = content[: frame + 1] + bytes([marker]) + content[frame + 2 : frame + 4] + bytes([precision])
        assert not jpeg_structure(other + content[frame + 5 :]).is_decodable


@given(st.binary(max_size=400), st.integers(0, 5000))
def test_any_bytes_have_a_structure(noise: bytes, place: int) -> None:
    content = jpeg(progressive=True)
    structure = jpeg_structure(content[:place] + noise + content[place:])
    assert structure.end is None or structure.end <= len(content) + len(noise)
