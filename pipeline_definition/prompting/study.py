"""A whole prompt study: draw, score, rank, and leave a contact sheet, tables and a page.

Reads an endpoint and the evaluator's CLIP; writes pictures/, table.csv, study.json, contact_sheet.png and, last,
study.html into one folder.

    sd-pipeline prompt-study --prompts prompts.txt --local --params params/local.yaml
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Final

from params.files import write_bytes
from pipeline_definition.prompting.clip_scores import score_pictures
from pipeline_definition.prompting.endpoint import Endpoint, draw_patiently
from pipeline_definition.prompting.study_page import columns, draw_sheet, write_page
from pipeline_definition.prompting.study_plan import StudyPicture, StudyPlan
from pipeline_definition.prompting.study_results import Results, ScoredTrial, StudyProvenance, results, write_tables

PICTURES_DIR: Final = "pictures"
SHEET_FILE: Final = "contact_sheet.png"
PAGE_FILE: Final = "study.html"
# A study has time: an endpoint that is busy for longer has another load to carry.
PATIENCE_S: Final = 600.0


def run_study(
    plan: StudyPlan, endpoint: Endpoint, evaluator_dir: Path, folder: Path, clients: int, report: Callable[[int], None]
) -> Results:
    """Draw, score, rank and write everything; `report` counts pictures. An interrupted study resumes."""
    trials = plan.trials
    folder.mkdir(parents=True, exist_ok=True)
    model, pictures = draw_trials(endpoint, trials, folder, clients, report)
    scores = score_pictures([(path, one.prompt) for path, one in zip(pictures, trials, strict=True)], evaluator_dir)
    scored = [ScoredTrial(*item) for item in zip(trials, pictures, scores.scores, strict=True)]
    outcome = results(plan, scored)
    about = StudyProvenance(endpoint.name, model, scores.clip)
    write_tables(folder, plan, scored, outcome, about)
    sheet = folder / SHEET_FILE
    draw_sheet(sheet, plan, scored, columns(plan, outcome))
    write_page(folder / PAGE_FILE, plan, outcome, about, sheet)
    return outcome


def draw_trials(
    endpoint: Endpoint, trials: Sequence[StudyPicture], folder: Path, clients: int, report: Callable[[int], None]
) -> tuple[str, tuple[Path, ...]]:
    """Draw what is missing with `clients` requests at once; `report` counts pictures.

    Returns the model that the endpoint says it draws with, and the pictures in the trials' order:
    <folder>/pictures/<model>/<request's digest>.png, each whole or not at all.

    Raises PromptError for the first request that the endpoint refuses; what is drawn stays.
    """
    # The first answer names the model: pictures of another model do not belong to this study.
    first = draw_patiently(endpoint, trials[0].request, PATIENCE_S)
    pictures = folder / PICTURES_DIR / hashlib.sha256(first.model.encode()).hexdigest()[:12]
    pictures.mkdir(parents=True, exist_ok=True)
    write_bytes(pictures / trials[0].file_name, first.pictures[0].content)
    paths = tuple(pictures / trial.file_name for trial in trials)

    def draw(trial: StudyPicture, path: Path) -> None:
        if not path.is_file():
            write_bytes(path, draw_patiently(endpoint, trial.request, PATIENCE_S).pictures[0].content)
        report(1)

    with ThreadPoolExecutor(clients) as pool:
        jobs = [pool.submit(draw, trial, path) for trial, path in zip(trials, paths, strict=True)]
        done, _ = wait(jobs, return_when=FIRST_EXCEPTION)
        for job in jobs:
            job.cancel()
    for job in done:
        job.result()
    return first.model, paths
