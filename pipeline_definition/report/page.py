"""Writes the run's page: one HTML file that answers with no other file and no network.

Reads a run's artifacts folder; writes one file. The same artifacts give the same bytes.

    sd-pipeline report RUN
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from params.files import write_text
from pipeline_definition.artifacts import Artifacts
from pipeline_definition.pages.formats import date
from pipeline_definition.pages.templates import templates
from pipeline_definition.report import drawing, pictures, timeline
from pipeline_definition.report.bill import cost_section
from pipeline_definition.report.data import download_section, latents_section
from pipeline_definition.report.headline import tiles
from pipeline_definition.report.lineage import lineage_section
from pipeline_definition.report.parameters import parameters_section
from pipeline_definition.report.quality import quality_section
from pipeline_definition.report.run import Run, run_of
from pipeline_definition.report.training import training_section
from pipeline_definition.report.tuning import tuning_section
from pipeline_definition.report.verdict import failure, verdict

SECTIONS = (
    quality_section,
    cost_section,
    training_section,
    tuning_section,
    download_section,
    latents_section,
    parameters_section,
    lineage_section,
)
# Told once for each phase of the training.
OF_A_PHASE = (training_section, latents_section)
NO_PRICES: Mapping[str, float] = MappingProxyType({})


def write_report(artifacts: Artifacts, path: Path, prices: Mapping[str, float] = NO_PRICES) -> None:
    """Write the page of a run.

    `prices` are USD for one instance-hour, by instance type: without them those of the run's forecast; without one a
    run on AWS tells its instance-hours.
    """
    prices = prices or (artifacts.forecast or {}).get("usd_per_instance_hour") or NO_PRICES
    write_text(path, render(run_of(artifacts, prices)))


def render(run: Run) -> str:
    """Return the page as HTML; everything that came from outside is escaped."""
    return templates(Path(__file__).parent).get_template("page.html").render(_content(run))


def _content(run: Run) -> dict[str, Any]:
    looks = {step.name: step.look for step in run.steps}
    nodes = tuple(step.node for step in run.steps)
    sections = [section(seen) for section in SECTIONS for seen in (run.phases if section in OF_A_PHASE else (run,))]
    return {
        "pipeline": _pipeline_name(run),
        "execution": run.artifacts.execution,
        "when": date(run.start) if run.start else "",
        "verdict": verdict(run),
        "failure": failure(run),
        "tiles": tiles(run),
        "sheet": pictures.contact_sheet(run.artifacts),
        "gallery": pictures.gallery(run.artifacts),
        "drawings": (drawing.lying(nodes, looks), drawing.standing(nodes, looks)) if nodes else (),
        "rows": timeline.rows(run),
        "summary": timeline.summary(run),
        "sections": [section for section in sections if not section.is_empty],
        "left_out": run.artifacts.execution.get("left_out") or {},
    }


def _pipeline_name(run: Run) -> str:
    """Return the name from arn:aws:sagemaker:REGION:ACCOUNT:pipeline/NAME/execution/ID."""
    parts = str(run.artifacts.execution.get("arn", "")).split("/")
    return parts[1] if len(parts) > 1 else "pipeline"
