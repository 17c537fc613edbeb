"""The page's first lines: how the run ended, in a sentence, and why where it failed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from params.layout import CLIP_SCORE, FID
from pipeline_definition.pages.formats import beside, figure
from pipeline_definition.report.gate import Metric, Threshold, metric, thresholds, warnings
from pipeline_definition.report.lineage import registered
from pipeline_definition.report.run import Run


@dataclass(frozen=True)
class Verdict:
    """How the run ended."""

    kind: str
    """passed, failed, stopped or running: the page's seal."""
    title: str
    lead: str


@dataclass(frozen=True)
class Failure:
    """Why a run did not end well."""

    step: str
    reason: str
    log: tuple[str, ...]
    """The last lines of the step's log, where they are known."""


def verdict(run: Run) -> Verdict:
    """Return how the run ended."""
    if run.status == "Succeeded":
        title = "Passed the quality gate" if _gate(run) else "Succeeded"
        reservations = warnings(run.artifacts.metrics)
        lead = " ".join(filter(None, (*reservations, quality(run), registered(run.artifacts))))
        return Verdict("passed", f"{title}, with a reservation" if reservations else title, lead)
    if run.status in ("Stopped", "Stopping"):
        begun = [step.name for step in run.steps if step.style == "stopped"]
        return Verdict("stopped", f"Stopped at {begun[0]}" if begun else "Stopped", quality(run))
    if run.status != "Failed":
        return Verdict("running", "Still running", quality(run))
    step = run.failed_step
    if step is not None and step.node.kind == "Fail" and _missed(run):
        lead = " ".join((*warnings(run.artifacts.metrics), quality(run)))
        return Verdict("failed", "Missed the quality gate", lead)
    return Verdict("failed", f"Failed at {step.name}" if step else "Failed", quality(run))


def quality(run: Run) -> str:
    """Return how good the model is, compared with the untrained one and the real pictures, in a sentence or two."""
    sentences, gate = [], _gate(run)
    for name, label in ((FID, "FID"), (CLIP_SCORE, "CLIP score")):
        if (measured := metric(run.artifacts.metrics, name)) is not None:
            asked = f" (the gate asks for {gate[name]})" if name in gate else ""
            sentences.append(f"{label} is {figure(measured.value)}{asked}{_others(run, name, measured)}.")
    return " ".join(sentences)


def failure(run: Run) -> Failure | None:
    """Return why the run did not end well, or None where it did."""
    if run.status == "Succeeded" or not run.is_finished:
        return None
    step = run.failed_step or next((step for step in run.steps if step.style == "stopped"), None)
    reason = str(step.record.get("failure_reason") or "") if step else ""
    reason = reason or str(run.artifacts.execution.get("failure_reason") or "")
    log = tuple(str(line) for line in (step.record.get("log_tail") or ())) if step else ()
    return Failure(step.name if step else "", reason, log) if reason or log else None


def _gate(run: Run) -> Mapping[str, Threshold]:
    return thresholds(run.artifacts.definition, run.artifacts.parameters)


def _missed(run: Run) -> bool:
    measured = ((metric(run.artifacts.metrics, name), threshold) for name, threshold in _gate(run).items())
    missed = any(value is not None and not threshold.is_met_by(value) for value, threshold in measured)
    return missed or bool(warnings(run.artifacts.metrics))


def _others(run: Run, name: str, measured: Metric) -> str:
    """Return what real pictures and the untrained model reach, where that was measured."""
    clauses = [
        f"{subject} {beside(other.value, measured.value)}"
        for suffix, subject in (("_real", "real pictures have"), ("_untrained", "the untrained model has"))
        if (other := metric(run.artifacts.metrics, name + suffix)) is not None
    ]
    return "; " + ", ".join(clauses) if clauses else ""
