"""A page of held-out captions: each real picture next to the one that the model drew.

Writes one PNG. The font is DejaVu Sans, which matplotlib carries: captions from the web need more than Pillow's own
font has.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import matplotlib
from PIL import Image, ImageDraw, ImageFont

from params.files import whole_file
from steps.evaluation.reference import Pictures

COLUMNS: Final = 5
PICTURE_PX: Final = 144
GAP_PX: Final = 4
PADDING_PX: Final = 10
CARD_GAP_PX: Final = 14
MARGIN_PX: Final = 28
CAPTION_LINES: Final = 3
CAPTION_FONT_PX: Final = 14
LABEL_FONT_PX: Final = 11
TITLE_FONT_PX: Final = 25
LINE_PX: Final = 19
HEADER_PX: Final = 92

PAGE: Final = "#f3f4f6"
CARD: Final = "#ffffff"
EDGE: Final = "#d9dce1"
INK: Final = "#17191d"
FAINT: Final = "#6b7280"

CARD_WIDTH_PX: Final = 2 * PICTURE_PX + GAP_PX + 2 * PADDING_PX


@dataclass(frozen=True)
class Card:
    """One caption."""

    caption: str
    real: Pictures | None
    """(H, W, 3) uint8, if this caption has one."""
    generated: Pictures
    """(H, W, 3) uint8."""


def draw_contact_sheet(path: Path, cards: Sequence[Card], title: str, subtitle: str) -> None:
    """Draw the page and write it, whole or not at all."""
    columns = min(COLUMNS, len(cards))
    rows = -(-len(cards) // columns)
    lines = max(len(wrapped(card.caption)) for card in cards)
    card_height_px = PICTURE_PX + LABEL_FONT_PX + LINE_PX * lines + 3 * PADDING_PX
    width = 2 * MARGIN_PX + columns * (CARD_WIDTH_PX + CARD_GAP_PX) - CARD_GAP_PX
    height = HEADER_PX + MARGIN_PX + rows * (card_height_px + CARD_GAP_PX) - CARD_GAP_PX
    sheet = Image.new("RGB", (width, height), PAGE)
    draw = ImageDraw.Draw(sheet)
    draw.text((MARGIN_PX, 22), _fit(title, TITLE_FONT_PX, width - 2 * MARGIN_PX), INK, font(TITLE_FONT_PX))
    draw.text((MARGIN_PX, 58), _fit(subtitle, CAPTION_FONT_PX, width - 2 * MARGIN_PX), FAINT, font(CAPTION_FONT_PX))
    for number, card in enumerate(cards):
        row, column = divmod(number, columns)
        left = MARGIN_PX + column * (CARD_WIDTH_PX + CARD_GAP_PX)
        top = HEADER_PX + row * (card_height_px + CARD_GAP_PX)
        draw.rounded_rectangle(
            (left, top, left + CARD_WIDTH_PX, top + card_height_px), radius=8, fill=CARD, outline=EDGE
        )
        _draw_card(sheet, draw, card, left, top)
    with whole_file(path) as partial:
        sheet.save(partial, "PNG", optimize=True)


def _draw_card(sheet: Image.Image, draw: ImageDraw.ImageDraw, card: Card, left: int, top: int) -> None:
    text_top = top + PADDING_PX + PICTURE_PX + 6
    for place, (label, picture) in enumerate((("real", card.real), ("generated", card.generated))):
        x = left + PADDING_PX + place * (PICTURE_PX + GAP_PX)
        if picture is not None:
            scaled = Image.fromarray(picture).resize((PICTURE_PX, PICTURE_PX), Image.Resampling.LANCZOS)
            sheet.paste(scaled, (x, top + PADDING_PX))
            draw.text((x, text_top), label, FAINT, font(LABEL_FONT_PX))
    for number, line in enumerate(wrapped(card.caption)):
        y = text_top + LABEL_FONT_PX + 8 + number * LINE_PX
        draw.text((left + PADDING_PX, y), line, INK, font(CAPTION_FONT_PX))


def wrapped(caption: str) -> list[str]:
    """Break a caption into lines that fit the card; text that is too long ends in an ellipsis."""
    width_px = CARD_WIDTH_PX - 2 * PADDING_PX
    face = font(CAPTION_FONT_PX)
    lines = [""]
    for word in caption.split():
        longer = f"{lines[-1]} {word}".strip()
        if not lines[-1] or face.getlength(longer) <= width_px:
            lines[-1] = longer
        else:
            lines.append(word)
    if len(lines) > CAPTION_LINES:
        lines[CAPTION_LINES - 1 :] = [" ".join(lines[CAPTION_LINES - 1 :])]
    return [_fit(line, CAPTION_FONT_PX, width_px) for line in lines]


def _fit(text: str, size_px: int, width_px: int) -> str:
    """Cut a line that is too wide, and end it with an ellipsis."""
    face = font(size_px)
    if face.getlength(text) <= width_px:
        return text
    # Every glyph is wider than a pixel, so no more than width_px of a very long line need be measured.
    for length in range(min(len(text), width_px), 0, -1):
        if face.getlength(text[:length].rstrip() + "…") <= width_px:
            return text[:length].rstrip() + "…"
    return "…"


@functools.cache
def font(size_px: int) -> ImageFont.FreeTypeFont:
    """Return the typeface at a size."""
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), size_px)
