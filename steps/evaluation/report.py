"""Writes an evaluation's files: samples.json, contact_sheet.png and, last, metrics.json.

The same pictures give the same bytes: nothing here depends on the time or on how often the job was interrupted. The
font is DejaVu Sans, which matplotlib carries: captions from the web need more than Pillow's own font has.
"""

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import matplotlib
from PIL import Image, ImageDraw, ImageFont

from params import layout
from params.files import whole_file, write_text
from steps.evaluation.generation import PictureSet, Work, versions
from steps.evaluation.intervals import Floats
from steps.evaluation.reference import Pictures, Reference
from steps.evaluation.results import Entries

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

REPORTED_SETTINGS: Final = {
    *("guidance_scale", "inference_steps", "sampler", "precision", "batch_size", "seed"),
    *("fid_features", "approved_model", "captions", "served"),
}


@dataclass(frozen=True)
class Card:
    caption: str
    real: Pictures | None
    """(H, W, 3) uint8, if this caption has one."""
    generated: Pictures


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
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), size_px)


def write_samples(folder: Path, row: PictureSet, cosines: Floats) -> None:
    """Write samples.json: for each picture its caption, seed, file and CLIP score."""
    store = row.store()
    samples = [
        {
            "index": prompt.index,
            "caption": prompt.caption,
            "seed": prompt.seed,
            "file": f"{layout.SAMPLES_DIR}/{store.path(prompt.index).name}",
            "clip_score": round(float(cosine), 6),
        }
        for prompt, cosine in zip(row.prompts, cosines, strict=True)
    ]
    write_text(folder / layout.SAMPLES_FILE, _json(samples))


def write_contact_sheet(folder: Path, reference: Reference, entries: Entries, work: Work) -> None:
    """Write contact_sheet.png: the first prompts, each with its real picture, if any, and the drawn one."""
    row = work.rows[0]
    prompts = row.prompts[: work.arguments.contact_sheet_samples]
    generated = row.store().read([prompt.index for prompt in prompts])
    cards = []
    for prompt, picture in zip(prompts, generated, strict=True):
        real = None if prompt.reference_row is None else reference.read([prompt.reference_row])[0]
        cards.append(Card(prompt.caption, real, picture))
    drawing = row.drawing
    title = f"FID {_figure(entries, layout.FID, 1)}   CLIP score {_figure(entries, layout.CLIP_SCORE, 3)}"
    subtitle = (
        f"{len(cards)} of {len(row.prompts)} held-out captions, real and generated   "
        f"guidance {drawing.guidance_scale:g}, {drawing.inference_steps} steps of {drawing.sampler}, "
        f"{drawing.size_px} px   in brackets: 95 % intervals"
    )
    draw_contact_sheet(folder / layout.CONTACT_SHEET_FILE, cards, title, subtitle)


def write_metrics(folder: Path, measured: Mapping[str, Any], work: Work) -> None:
    """Write metrics.json: what was measured, and the settings and versions it was computed with."""
    arguments, row = work.arguments, work.rows[0]
    content = {
        **measured,
        **arguments.model_dump(include=REPORTED_SETTINGS),
        "samples": len(row.prompts),
        "requested_samples": arguments.samples,
        "size_px": row.drawing.size_px,
        "pretrained_size_px": arguments.pretrained_size_px or row.drawing.size_px,
        "versions": versions(),
    }
    write_text(folder / layout.METRICS_FILE, _json(content))


def _figure(entries: Entries, name: str, digits: int) -> str:
    entry = entries[name]
    return f"{entry['value']:.{digits}f} ({entry['low']:.{digits}f} to {entry['high']:.{digits}f})"


def _json(content: Any) -> str:
    # NaN is not JSON: SageMaker could not read it.
    return json.dumps(content, indent=2, sort_keys=True, allow_nan=False) + "\n"
