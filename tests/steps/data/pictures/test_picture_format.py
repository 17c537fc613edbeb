import pytest

from steps.data.causes import Cause
from steps.data.pictures.picture_format import format_of, is_cut, refusal
from tests.steps.data.picture_kinds import CUT, GREY, KINDS, NO_PICTURES, UNREAD

# What only a decoder sees of a picture is left to it.
UNREAD = {name: body for name, body in UNREAD.items() if not name.startswith("tiff") and "of light" not in name}


@pytest.mark.parametrize("kind", [*KINDS, *(f"grey {kind}" for kind in GREY)])
def test_pictures_of_every_kind_pass(kind: str) -> None:
    content = KINDS[kind]() if kind in KINDS else GREY[kind.removeprefix("grey ")]()
    assert refusal(content) is None
    assert is_cut(content) == (kind == "jpeg without end marker")


@pytest.mark.parametrize("kind", CUT)
def test_a_missing_end_is_seen(kind: str) -> None:
    assert is_cut(CUT[kind]())


@pytest.mark.parametrize("kind", UNREAD)
def test_pictures_that_nothing_reads_are_told_from_what_is_no_picture(kind: str) -> None:
    assert refusal(UNREAD[kind]) is Cause.UNSUPPORTED_FORMAT


@pytest.mark.parametrize("kind", NO_PICTURES)
def test_anything_else_is_no_picture(kind: str) -> None:
    assert format_of(NO_PICTURES[kind]) is None
    assert refusal(NO_PICTURES[kind]) is Cause.NOT_A_PICTURE
