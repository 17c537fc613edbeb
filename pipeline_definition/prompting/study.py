"""A whole prompt study: draw, score, rank, and leave tables and one HTML page that needs no other file and no network.

Reads an endpoint and the evaluator's CLIP; writes pictures/, table.csv, study.json and, last, study.html into one
folder. The page has the first prompts as the settings that show a difference drew them.

    sd-pipeline prompt-study --prompts prompts.txt --local --params params/local.yaml
"""

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from PIL import Image

from params.files import write_text
from pipeline_definition.pages.document import Document, EmbeddedPicture, Fact, Section, Table, data_address
from pipeline_definition.pages.html import to_html
from pipeline_definition.prompting.clip_scores import score_pictures
from pipeline_definition.prompting.drawing import draw_all
from pipeline_definition.prompting.endpoint import Endpoint
from pipeline_definition.prompting.intervals import reservation
from pipeline_definition.prompting.study_plan import PLAIN, Setting, StudyPlan
from pipeline_definition.prompting.study_results import (
    FACTORS,
    Results,
    ScoredTrial,
    StudyProvenance,
    results,
    write_tables,
)

PAGE_FILE: Final = "study.html"
MAX_RANKED: Final = 20
TITLES: Final = {
    "modifier": "Words around the prompt",
    "guidance_scale": "Guidance scale",
    "steps": "Steps",
    "sampler": "Sampler",
}
MAX_PROMPTS: Final = 8
# Of the longer side: the files themselves lie beside the page.
THUMBNAIL_PX: Final = 320

Column = tuple[str, Setting]
"""Why a setting is on the sheet, and the setting."""


def run_study(
    plan: StudyPlan, endpoint: Endpoint, evaluator_dir: Path, folder: Path, clients: int, report: Callable[[int], None]
) -> Results:
    """Draw, score, rank and write everything; `report` counts pictures. An interrupted study resumes."""
    trials = plan.trials
    folder.mkdir(parents=True, exist_ok=True)
    model, pictures = draw_all(endpoint, [trial.request for trial in trials], folder, clients, report)
    scores = score_pictures([(path, one.prompt) for path, one in zip(pictures, trials, strict=True)], evaluator_dir)
    scored = [ScoredTrial(*item) for item in zip(trials, pictures, scores.scores, strict=True)]
    outcome = results(plan, scored)
    about = StudyProvenance(endpoint.name, model, scores.clip)
    write_tables(folder, plan, scored, outcome, about)
    write_page(folder / PAGE_FILE, plan, outcome, about, scored)
    return outcome


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


def _drawn(plan: StudyPlan, results: Results, scored: Sequence[ScoredTrial]) -> Iterator[Section]:
    """Yield the first prompts, each as the settings that show a difference drew it from the first seed."""
    pictures = {(item.trial.prompt, item.trial.setting): item for item in scored if item.trial.seed == plan.seeds[0]}
    for number, prompt in enumerate(plan.prompts[:MAX_PROMPTS], 1):
        row = [(title, pictures[prompt, setting]) for title, setting in columns(plan, results)]
        best = max(item.clip_score for _, item in row)
        drawn = []
        for title, item in row:
            label = item.trial.setting.label
            text, is_best = f"CLIP {item.clip_score:.2f}: {label}", item.clip_score == best
            drawn.append(EmbeddedPicture(_thumbnail(item.picture), f"{prompt} | {label}", title, text, is_best))
        yield Section(f"prompt-{number}", prompt, f"seed {plan.seeds[0]}", pictures=tuple(drawn), is_wide=True)


def _thumbnail(path: Path) -> str:
    file = io.BytesIO()
    with Image.open(path) as image:
        image.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
        image.convert("RGB").save(file, "PNG")
    return data_address(file.getvalue())


def write_page(
    path: Path, plan: StudyPlan, results: Results, about: StudyProvenance, scored: Sequence[ScoredTrial]
) -> None:
    """Write the page, whole or not at all; every text is escaped."""
    best, cheapest = results.best.setting, results.cheapest.setting
    found = "No cheaper one is shown to be as good."
    if best != cheapest:
        cost = f"{cheapest.unet_calls / best.unet_calls:.0%} of the cost"
        found = f"As good, as far as this study can tell, at {cost}: {cheapest.label}."
    named = {"best": results.best, "cheapest that is as good": results.cheapest, "worst": results.worst}
    facts = tuple(
        Fact(label, f"{one.expected:.3f}", f"{one.setting.label}; {one.setting.unet_calls} network calls")
        for label, one in named.items()
    )
    works = (
        "CLIP score: the cosine of the picture with the prompt alone, as to be expected on other prompts: the best of"
        " many is best by luck as well, so all are drawn towards their mean. The cost: how often the network is asked."
    )
    sections = (
        Section("what-works", "What works", works, facts=facts),
        *(_effects(factor, results) for factor in FACTORS),
        _ranking(results),
        *_drawn(plan, results, scored),
    )
    notes = (f"Model {about.model}. CLIP {about.clip[:12]}. Intervals: 95 %, by Student's t over the prompts.",)
    eyebrow = (about.endpoint, f"{len(plan.trials):,} pictures")
    lead = f"Best: {best.label}. {found} {reservation(len(plan.prompts))}".strip()
    write_text(path, to_html(Document(eyebrow, "Prompt study", lead, sections, notes)))


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
