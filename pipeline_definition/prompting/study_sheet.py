"""The study's contact sheet: a row for each prompt, a column for each setting that shows a difference.

Writes one PNG. The font is DejaVu Sans, which matplotlib carries: prompts need more letters than Pillow's own font has.
"""

from __future__ import annotations

import functools
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import matplotlib
from PIL import Image, ImageDraw, ImageFont

from params.files import whole_file
from pipeline_definition.prompting.study_plan import PLAIN, Setting, StudyPlan
from pipeline_definition.prompting.study_results import Results, ScoredTrial

MAX_ROWS: Final = 8
PICTURE_PX: Final = 168
GAP_PX: Final = 14
MARGIN_PX: Final = 28
HEADER_PX: Final = 104
PROMPT_PX: Final = 230
SCORE_PX: Final = 20
TEXT_PX: Final = 14
LABEL_PX: Final = 12
LINE_PX: Final = 18
PROMPT_CHARACTERS: Final = 28
HEADER_CHARACTERS: Final = 25

PAGE: Final = "#f3f4f6"
INK: Final = "#17191d"
FAINT: Final = "#6b7280"


@dataclass(frozen=True)
class Column:
    """One setting on the sheet."""

    title: str
    setting: Setting


def columns(plan: StudyPlan, results: Results) -> tuple[Column, ...]:
    """Return the settings to show: the best, the cheapest as good, the best with other words or guidance, the worst."""
    best = results.best.setting
    chosen = [Column("best", best), Column("cheapest as good", results.cheapest.setting)]
    for guidance_scale in plan.grid.guidance_scales:
        other = Setting(best.modifier, guidance_scale, best.steps, best.sampler)
        chosen.append(Column("same, other guidance", other))
    for modifier in plan.grid.modifiers:
        chosen.append(Column("same, other words", Setting(modifier, best.guidance_scale, best.steps, best.sampler)))
    chosen.append(Column("worst", results.worst.setting))
    kept: dict[Setting, Column] = {}
    for column in chosen:
        kept.setdefault(column.setting, column)
    return tuple(kept.values())


def draw_sheet(path: Path, plan: StudyPlan, scored: Sequence[ScoredTrial], shown: Sequence[Column]) -> None:
    """Draw the sheet of the first seed's pictures and write it, whole or not at all."""
    prompts = plan.prompts[:MAX_ROWS]
    pictures = {(item.trial.prompt, item.trial.setting): item for item in scored if item.trial.seed == plan.seeds[0]}
    width = 2 * MARGIN_PX + PROMPT_PX + len(shown) * (PICTURE_PX + GAP_PX)
    height = HEADER_PX + MARGIN_PX + len(prompts) * (PICTURE_PX + SCORE_PX + GAP_PX)
    sheet = Image.new("RGB", (width, height), PAGE)
    draw = ImageDraw.Draw(sheet)
    for place, column in enumerate(shown):
        _draw_header(draw, column, _left(place))
    for row, prompt in enumerate(prompts):
        top = HEADER_PX + row * (PICTURE_PX + SCORE_PX + GAP_PX)
        lines = textwrap.wrap(prompt, PROMPT_CHARACTERS, max_lines=6, placeholder=" …")
        for number, line in enumerate(lines):
            draw.text((MARGIN_PX, top + number * LINE_PX), line, INK, _font(TEXT_PX))
        _draw_row(sheet, draw, [(place, pictures[prompt, column.setting]) for place, column in enumerate(shown)], top)
    with whole_file(path) as partial:
        sheet.save(partial, "PNG", optimize=True)


def _draw_row(
    sheet: Image.Image, draw: ImageDraw.ImageDraw, items: Sequence[tuple[int, ScoredTrial]], top: int
) -> None:
    for place, item in items:
        with Image.open(item.picture) as image:
            picture = image.convert("RGB").resize((PICTURE_PX, PICTURE_PX), Image.Resampling.LANCZOS)
        sheet.paste(picture, (_left(place), top))
        draw.text((_left(place), top + PICTURE_PX + 3), f"CLIP {item.clip_score:.2f}", FAINT, _font(LABEL_PX))


def _draw_header(draw: ImageDraw.ImageDraw, column: Column, left: int) -> None:
    setting = column.setting
    about = f"guidance {setting.guidance_scale:g}, {setting.steps} × {setting.sampler}"
    words = "" if setting.modifier == PLAIN else setting.modifier.replace(PLAIN, "…")
    lines = textwrap.wrap(words, HEADER_CHARACTERS, max_lines=2, placeholder=" …")
    draw.text((left, 20), column.title, INK, _font(TEXT_PX))
    for number, line in enumerate((about, *lines)):
        draw.text((left, 42 + number * LINE_PX), line, FAINT, _font(LABEL_PX))


def _left(place: int) -> int:
    return MARGIN_PX + PROMPT_PX + place * (PICTURE_PX + GAP_PX)


@functools.cache
def _font(size_px: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), size_px)
