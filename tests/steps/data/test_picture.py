from __future__ import annotations

import pytest

from steps.data.causes import Cause
from steps.data.picture import refusal
from tests.steps.data.web import SVG, picture

KINDS = ["JPEG", "PNG", "WEBP", "GIF", "BMP"]


@pytest.mark.parametrize("kind", KINDS)
def test_whole_pictures_pass(kind: str) -> None:
    assert refusal(picture(1, kind=kind)) is None


@pytest.mark.parametrize("kind", KINDS)
def test_cut_pictures_are_truncated(kind: str) -> None:
    content = picture(1, kind=kind)
    assert refusal(content[: len(content) * 2 // 3]) is Cause.TRUNCATED


def test_the_end_of_a_thumbnail_is_not_the_end_of_the_picture() -> None:
    thumbnail, content = picture(2), picture(1)
    inside = content[:2] + b"\xff\xe1\x40\x00" + thumbnail + content[2:]
    assert refusal(inside) is None
    assert refusal(inside[:-300]) is Cause.TRUNCATED


@pytest.mark.parametrize("content", [b"", SVG, b"<html>", b"MM\x00*tiff", b"\x00" * 100, b"\xff\xd8"])
def test_anything_else_is_no_picture(content: bytes) -> None:
    assert refusal(content) is Cause.NOT_A_PICTURE
