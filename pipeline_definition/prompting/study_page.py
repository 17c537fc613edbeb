"""The study's contact sheet, and the study as one HTML page that needs no other file and no network.

The sheet has a row for each prompt and a column for each setting that shows a difference, drawn by matplotlib in its
DejaVu Sans, which has the letters of most prompts. Reads results and pictures; writes one PNG and study.html.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from matplotlib.figure import Figure
from PIL import Image

from params.files import whole_file, write_text
from pipeline_definition.pages.document import Document, EmbeddedPicture, Fact, Section, Table, data_address
from pipeline_definition.pages.html import to_html
from pipeline_definition.prompting.intervals import FEWEST, reservation
from pipeline_definition.prompting.study_plan import PLAIN, Setting, StudyPlan
from pipeline_definition.prompting.study_results import FACTORS, Results, ScoredTrial, StudyProvenance

MAX_RANKED: Final = 20
TITLES: Final = {
    "modifier": "Words around the prompt",
    "guidance_scale": "Guidance scale",
    "steps": "Steps",
    "sampler": "Sampler",
}
MAX_ROWS: Final = 8
DPI: Final = 100
# A picture with what stands around it, and the header above: inches.
CELL: Final = (1.9, 2.1)
HEADER: Final = 0.95
# Width of a prompt in cells.
PROMPT: Final = 1.25
PROMPT_CHARACTERS: Final = 28
HEADER_CHARACTERS: Final = 25

PAGE: Final = "#f3f4f6"
INK: Final = "#17191d"
FAINT: Final = "#6b7280"

Column = tuple[str, Setting]
"""Why a setting is on the sheet, and the setting."""


def columns(plan: StudyPlan, results: Results) -> list[Column]:
    """Return the settings to show: the best, the cheapest as good, the best with other words or guidance, the worst."""
    titles: dict[Setting, str] = {}
    best = results.best.setting
    candidates = {
        "best": [best],
        "cheapest as good": [results.cheapest.setting],
        "same, other guidance": [replace(best, guidance_scale=scale) for scale in plan.grid.guidance_scales],
        "same, other words": [replace(best, modifier=modifier) for modifier in plan.grid.modifiers],
        "worst": [results.worst.setting],
    }
    for title, setting in ((title, setting) for title, settings in candidates.items() for setting in settings):
        titles.setdefault(setting, title)
    return [(title, setting) for setting, title in titles.items()]


def draw_sheet(path: Path, plan: StudyPlan, scored: Sequence[ScoredTrial], shown: Sequence[Column]) -> None:
    """Draw the sheet of the first seed's pictures and write it, whole or not at all."""
    prompts = plan.prompts[:MAX_ROWS]
    pictures = {(item.trial.prompt, item.trial.setting): item for item in scored if item.trial.seed == plan.seeds[0]}
    columns_wide, height = PROMPT + len(shown), HEADER + CELL[1] * len(prompts)
    figure = Figure((CELL[0] * columns_wide, height), DPI, facecolor=PAGE)
    shape, widths = (len(prompts), 1 + len(shown)), [PROMPT, *[1.0] * len(shown)]
    grid = figure.subplots(*shape, squeeze=False, width_ratios=widths)
    figure.subplots_adjust(0.02, 0.25 / height, 0.98, 1 - HEADER / height, wspace=0.08, hspace=0.16)
    for axes in grid.flat:
        axes.axis("off")
    for row, prompt in enumerate(prompts):
        text = textwrap.fill(prompt, PROMPT_CHARACTERS, max_lines=6, placeholder=" …")
        grid[row, 0].text(0, 1, text, color=INK, va="top", fontsize=9.5, parse_math=False)
        for axes, (_, setting) in zip(grid[row, 1:], shown, strict=True):
            item = pictures[prompt, setting]
            with Image.open(item.picture) as image:
                axes.imshow(image.convert("RGB"), interpolation="lanczos")
            axes.set_title(f"CLIP {item.clip_score:.2f}", y=-0.11, loc="left", color=FAINT, fontsize=8)
    for axes, (title, setting) in zip(grid[0, 1:], shown, strict=True):
        about = f"guidance {setting.guidance_scale:g}, {setting.steps} × {setting.sampler}"
        words = "" if setting.modifier == PLAIN else setting.modifier.replace(PLAIN, "…")
        lines = [about, *textwrap.wrap(words, HEADER_CHARACTERS, max_lines=2, placeholder=" …")]
        axes.text(0, 1.4, title, color=INK, fontsize=9.5, va="top", transform=axes.transAxes)
        axes.text(
            0, 1.28, "\n".join(lines), color=FAINT, fontsize=8, va="top", transform=axes.transAxes, parse_math=False
        )
    with whole_file(path) as partial:
        figure.savefig(partial, format="png", metadata={"Software": None})


def write_page(path: Path, plan: StudyPlan, results: Results, about: StudyProvenance, sheet: Path) -> None:
    """Write the page, whole or not at all; every text is escaped."""
    best, cheapest = results.best.setting, results.cheapest.setting
    found = reservation(len(plan.prompts))
    if best != cheapest:
        cost = f"{cheapest.unet_calls / best.unet_calls:.0%} of the cost"
        found = f"As good, as far as this study can tell, at {cost}: {cheapest.label}. {found}"
    elif len(plan.prompts) >= FEWEST:
        found = f"Nothing cheaper is as good. {found}"
    named = {"best": results.best, "cheapest that is as good": results.cheapest, "worst": results.worst}
    facts = tuple(
        Fact(label, f"{one.expected:.3f}", f"{one.setting.label}; {one.setting.unet_calls} network calls")
        for label, one in named.items()
    )
    works = (
        "CLIP score: the cosine of the picture with the prompt alone, as to be expected on other prompts: the best of"
        " many is best by luck as well, so all are drawn towards their mean by what chance makes of it. The cost is how"
        " often the network is asked."
    )
    picture = EmbeddedPicture(data_address(sheet.read_bytes()), "A row for each prompt, a column for each setting")
    own = f"Each prompt's picture of seed {plan.seeds[0]}, with its own CLIP score."
    sections = (
        Section("what-works", "What works", works, facts=facts),
        *(_effects(factor, results) for factor in FACTORS),
        _ranking(results),
        Section("sheet", "Contact sheet", own, sheet=picture, is_wide=True),
    )
    intervals = "Intervals: 95 %, Student's t over the prompts, corrected for skewness."
    notes = (f"Model {about.model}. CLIP {about.clip[:12]}. {intervals}",)
    eyebrow = (about.endpoint, f"{len(plan.trials):,} pictures")
    write_text(
        path, to_html(Document(eyebrow, "Prompt study", f"Best: {best.label}. {found}".strip(), sections, notes))
    )


def _effects(factor: str, results: Results) -> Section:
    rows = []
    for effect in (effect for effect in results.effects if effect.factor == factor):
        value = "prompt alone" if effect.value == PLAIN else effect.value.replace(PLAIN, "…")
        score, change = effect.clip_score, effect.change
        changed = ("", "") if change is None else (f"{change.mean:+.3f}", change.interval("+.3f"))
        rows.append((value, f"{score.mean:.3f}", score.interval(".3f"), *changed))
    headers = (TITLES[factor], "CLIP score", "interval", "change", "interval")
    lead = "Mean over all other settings; the change is against the first line, on the same prompts and seeds."
    return Section(factor, TITLES[factor], lead, tables=(Table(headers, tuple(rows), frozenset({1, 2, 3, 4})),))


def _ranking(results: Results) -> Section:
    shown, rows = results.ranking[:MAX_RANKED], []
    for place, entry in enumerate(shown, 1):
        score = (f"{entry.clip_score.mean:.3f}", entry.clip_score.interval(".3f"), f"{entry.expected:.3f}")
        calls, as_good = str(entry.setting.unet_calls), "yes" if entry.as_good else "no"
        rows.append((str(place), entry.setting.label, as_good, *score, calls))
    headers = ("place", "setting", "as good as the best", "CLIP score", "interval", "expected", "network calls")
    lead = f"The first {len(shown)} of {len(results.ranking)}; table.csv has every picture."
    return Section("ranking", "Ranking", lead, tables=(Table(headers, tuple(rows), frozenset({0, 3, 4, 5, 6})),))
