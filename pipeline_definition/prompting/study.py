"""A whole prompt study: draw, score, rank, and leave a contact sheet, tables and a page.

Reads an endpoint and the evaluator's CLIP; writes pictures/, table.csv, study.json, contact_sheet.png and, last,
study.html into one folder.

    sd-pipeline prompt-study --prompts prompts.txt --local --params params/local.yaml
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pipeline_definition.prompting.clip_scores import score_pictures
from pipeline_definition.prompting.endpoint import Endpoint
from pipeline_definition.prompting.study_page import write_page
from pipeline_definition.prompting.study_plan import StudyPlan
from pipeline_definition.prompting.study_results import Results, ScoredTrial, results
from pipeline_definition.prompting.study_run import draw_trials
from pipeline_definition.prompting.study_sheet import columns, draw_sheet
from pipeline_definition.prompting.study_tables import StudyProvenance, write_tables

SHEET_FILE: Final = "contact_sheet.png"
PAGE_FILE: Final = "study.html"


@dataclass(frozen=True)
class Study:
    """A plan, and what it is carried out with."""

    plan: StudyPlan
    endpoint: Endpoint
    evaluator_dir: Path
    folder: Path
    clients: int

    def run(self, report: Callable[[int], None]) -> Results:
        """Carry it out; `report` counts pictures. A study that was broken off goes on where it was."""
        trials = self.plan.trials
        self.folder.mkdir(parents=True, exist_ok=True)
        drawn = draw_trials(self.endpoint, trials, self.folder, self.clients, report)
        pairs = [(picture, trial.prompt) for picture, trial in zip(drawn.pictures, trials, strict=True)]
        scores = score_pictures(pairs, self.evaluator_dir)
        scored = [ScoredTrial(*item) for item in zip(trials, drawn.pictures, scores.scores, strict=True)]
        found = results(self.plan, scored)
        about = StudyProvenance(self.endpoint.name, drawn.model, scores.clip)
        write_tables(self.folder, self.plan, scored, found, about)
        sheet = self.folder / SHEET_FILE
        draw_sheet(sheet, self.plan, scored, columns(self.plan, found))
        write_page(self.folder / PAGE_FILE, self.plan, found, about, sheet)
        return found
