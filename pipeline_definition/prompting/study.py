"""A whole prompt study: draw, score, rank, and leave tables and a page.

Reads an endpoint and the evaluator's CLIP; writes pictures/, table.csv, study.json and, last, study.html into one
folder.

    sd-pipeline prompt-study --prompts prompts.txt --local --params params/local.yaml
"""

from collections.abc import Callable
from pathlib import Path
from typing import Final

from pipeline_definition.prompting.clip_scores import score_pictures
from pipeline_definition.prompting.drawing import draw_all
from pipeline_definition.prompting.endpoint import Endpoint
from pipeline_definition.prompting.study_page import write_page
from pipeline_definition.prompting.study_plan import StudyPlan
from pipeline_definition.prompting.study_results import Results, ScoredTrial, StudyProvenance, results, write_tables

PAGE_FILE: Final = "study.html"


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
