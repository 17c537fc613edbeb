"""The contact sheet shows each pair of pictures under legible captions."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from steps.evaluation.reference import Pictures
from steps.evaluation.report import (
    CAPTION_FONT_PX,
    CAPTION_LINES,
    CARD_WIDTH_PX,
    HEADER_PX,
    MARGIN_PX,
    PADDING_PX,
    PICTURE_PX,
    Card,
    draw_contact_sheet,
    font,
    wrapped,
)


def plain(colour: tuple[int, int, int]) -> Pictures:
    return np.full((16, 16, 3), colour, dtype=np.uint8)


def draw(path: Path, count: int, caption: str = "a small red circle", title: str = "FID 9.1") -> Pictures:
    cards = [Card(caption, plain((200, row, 10)), plain((10, row, 200))) for row in range(count)]
    draw_contact_sheet(path, cards, title, "guidance 3")
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def test_every_card_shows_its_real_picture_and_beside_it_the_generated_one(tmp_path: Path) -> None:
    sheet = draw(tmp_path / "sheet.png", 13)
    for row in range(13):
        for colour in ((200, row, 10), (10, row, 200)):
            assert (sheet == colour).all(-1).sum() == PICTURE_PX * PICTURE_PX
    middle = PICTURE_PX // 2 + HEADER_PX + PADDING_PX
    left = MARGIN_PX + PADDING_PX + PICTURE_PX // 2
    assert tuple(sheet[middle, left]) == (200, 0, 10)
    assert tuple(sheet[middle, left + PICTURE_PX]) == (10, 0, 200)


def test_a_caption_without_a_real_picture_leaves_its_place_empty(tmp_path: Path) -> None:
    draw_contact_sheet(tmp_path / "sheet.png", [Card("a dog", None, plain((10, 0, 200)))], "FID 9.1", "guidance 3")
    with Image.open(tmp_path / "sheet.png") as image:
        sheet = np.asarray(image.convert("RGB"))
    assert (sheet == (10, 0, 200)).all(-1).sum() == PICTURE_PX * PICTURE_PX


def test_the_header_and_the_captions_are_written(tmp_path: Path) -> None:
    with_text = draw(tmp_path / "with.png", 2)
    without = draw(tmp_path / "without.png", 2, caption="", title="")
    changed = (with_text != without).any(-1)
    assert changed[:HEADER_PX].sum() > 50
    assert changed[HEADER_PX + PADDING_PX + PICTURE_PX :].sum() > 200


@pytest.mark.parametrize(
    "caption",
    [
        "a red dot",
        "a large yellow triangle on the right on a green background " * 4,
        "https://example.org/" + "x" * 500,
        "línea\nnueva\ttab",
        "",
    ],
)
def test_no_line_is_wider_than_its_card(caption: str) -> None:
    lines = wrapped(caption)
    assert len(lines) <= CAPTION_LINES
    assert all(font(CAPTION_FONT_PX).getlength(line) <= CARD_WIDTH_PX - 2 * PADDING_PX for line in lines)
    whole = " ".join(caption.split())
    assert " ".join(lines) == whole or lines[-1].endswith("…")


def test_a_caption_that_fits_is_not_cut() -> None:
    caption = "a small yellow triangle on the right on a black background"
    assert " ".join(wrapped(caption)) == caption
