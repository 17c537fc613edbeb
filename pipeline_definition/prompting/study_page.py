"""The study as one HTML page that needs no other file and no network.

Reads results and the contact sheet; writes study.html.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from params.files import write_text
from pipeline_definition.pages.document import Document, EmbeddedPicture, Fact, Section, Table, data_address
from pipeline_definition.pages.html import to_html
from pipeline_definition.prompting.bootstrap import Estimate
from pipeline_definition.prompting.study_plan import PLAIN, StudyPlan
from pipeline_definition.prompting.study_results import FACTORS, Results, StudyProvenance

MAX_RANKED: Final = 20
TITLES: Final = {
    "modifier": "Words around the prompt",
    "guidance_scale": "Guidance scale",
    "steps": "Steps",
    "sampler": "Sampler",
}


def write_page(path: Path, plan: StudyPlan, results: Results, about: StudyProvenance, sheet: Path) -> None:
    """Write the page, whole or not at all; every text is escaped."""
    best, cheapest = results.best.setting, results.cheapest.setting
    found = "Nothing cheaper is as good."
    if best != cheapest:
        cost = f"{cheapest.unet_calls / best.unet_calls:.0%} of the cost"
        found = f"As good, as far as this study can tell, at {cost}: {cheapest.label}."
    named = {"best": results.best, "cheapest that is as good": results.cheapest, "worst": results.worst}
    facts = tuple(
        Fact(label, f"{one.clip_score.mean:.3f}", f"{one.setting.label}; {one.setting.unet_calls} UNet calls")
        for label, one in named.items()
    )
    works = "CLIP score: the cosine of the picture with the prompt alone. The cost is how often the UNet is asked."
    picture = EmbeddedPicture(data_address(sheet.read_bytes()), "A row for each prompt, a column for each setting")
    own = f"Each prompt's picture of seed {plan.seeds[0]}, with its own CLIP score."
    sections = (
        Section("what-works", "What works", works, facts=facts),
        *(_effects(factor, results) for factor in FACTORS),
        _ranking(results),
        Section("sheet", "Contact sheet", own, sheet=picture, is_wide=True),
    )
    notes = (f"Model {about.model}. CLIP {about.clip[:12]}. Intervals: 95 %, bootstrap over the prompts.",)
    eyebrow = (about.endpoint, f"{len(plan.trials):,} pictures")
    write_text(path, to_html(Document(eyebrow, "Prompt study", f"Best: {best.label}. {found}", sections, notes)))


def _effects(factor: str, results: Results) -> Section:
    rows = []
    for effect in (effect for effect in results.effects if effect.factor == factor):
        value = "prompt alone" if effect.value == PLAIN else effect.value.replace(PLAIN, "…")
        score, change = effect.clip_score, effect.change
        changed = ("", "") if change is None else (f"{change.mean:+.3f}", _interval(change, "+.3f"))
        rows.append((value, f"{score.mean:.3f}", _interval(score, ".3f"), *changed))
    headers = (TITLES[factor], "CLIP score", "interval", "change", "interval")
    lead = "Mean over all other settings; the change is against the first line, on the same prompts and seeds."
    return Section(factor, TITLES[factor], lead, tables=(Table(headers, tuple(rows), frozenset({1, 2, 3, 4})),))


def _ranking(results: Results) -> Section:
    shown, rows = results.ranking[:MAX_RANKED], []
    for place, entry in enumerate(shown, 1):
        score = (f"{entry.clip_score.mean:.3f}", _interval(entry.clip_score, ".3f"))
        calls, as_good = str(entry.setting.unet_calls), "yes" if entry.as_good else "no"
        rows.append((str(place), entry.setting.label, calls, *score, as_good))
    headers = ("place", "setting", "UNet calls", "CLIP score", "interval", "as good as the best")
    lead = f"The first {len(shown)} of {len(results.ranking)}; table.csv has every picture."
    return Section("ranking", "Ranking", lead, tables=(Table(headers, tuple(rows), frozenset({0, 2, 3, 4})),))


def _interval(value: Estimate, form: str) -> str:
    return f"{value.low:{form}} to {value.high:{form}}"
