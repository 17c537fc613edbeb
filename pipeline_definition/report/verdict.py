"""The page's first lines: how the run ended, in a sentence, and why where it failed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from params.layout import CLIP_SCORE, CLIP_SCORE_REAL, CLIP_SCORE_UNTRAINED, FID, FID_UNTRAINED
from pipeline_definition.report.formats import figure
from pipeline_definition.report.gate import Metric, Threshold, metric, thresholds
from pipeline_definition.report.run import Run, RunStep


@dataclass(frozen=True)
class Verdict:
    """How the run ended."""

    kind: str
    """passed, failed, stopped or running: the colour of the page's seal."""
    title: str
    lead: str


@dataclass(frozen=True)
class Failure:
    """Why a run did not end well."""

    step: str
    reason: str
    log: tuple[str, ...]
    """Last lines of the step's log, where they are known."""


def verdict(run: Run) -> Verdict:
    """Return how the run ended."""
    if run.status == "Succeeded":
        title = "Passed the quality gate" if _gate(run) else "Succeeded"
        return Verdict("passed", title, quality(run))
    if run.status in ("Stopped", "Stopping"):
        begun = [step.name for step in run.steps if step.style == "stopped"]
        return Verdict("stopped", f"Stopped at {begun[0]}" if begun else "Stopped", quality(run))
    if run.status != "Failed":
        return Verdict("running", "Still running", quality(run))
    step = run.failed_step
    if step is not None and step.node.kind == "Fail" and _missed(run):
        return Verdict("failed", "Missed the quality gate", quality(run))
    return Verdict("failed", f"Failed at {step.name}" if step else "Failed", quality(run))


def quality(run: Run) -> str:
    """Return how good the model is beside the untrained one and the real pictures, in a sentence or two."""
    metrics = run.artifacts.metrics
    fid, clip_score = metric(metrics, FID), metric(metrics, CLIP_SCORE)
    asked = _gate(run)
    sentences = []
    if fid:
        sentences.append(f"FID is {figure(fid.value)}{_asked(asked, FID)}{_beside_untrained(run, fid)}.")
    if clip_score:
        sentences.append(f"CLIP score is {figure(clip_score.value)}{_asked(asked, CLIP_SCORE)}{_beside_others(run)}.")
    return " ".join(sentences)


def failure(run: Run) -> Failure | None:
    """Return why the run did not end well, or None where it did."""
    if run.status == "Succeeded" or not run.is_finished:
        return None
    step = run.failed_step or _stopped_step(run)
    reason = str(step.record.get("failure_reason") or "") if step else ""
    reason = reason or str(run.artifacts.execution.get("failure_reason") or "")
    log = tuple(str(line) for line in (step.record.get("log_tail") or ())) if step else ()
    return Failure(step.name if step else "", reason, log) if reason or log else None


def _gate(run: Run) -> Mapping[str, Threshold]:
    return thresholds(run.artifacts.definition, run.artifacts.parameters)


def _missed(run: Run) -> bool:
    values = {name: metric(run.artifacts.metrics, name) for name in _gate(run)}
    return any(value is not None and not _gate(run)[name].passes(value.value) for name, value in values.items())


def _stopped_step(run: Run) -> RunStep | None:
    return next((step for step in run.steps if step.style == "stopped"), None)


def _asked(asked: Mapping[str, Threshold], name: str) -> str:
    return f" (the gate asks for {asked[name].sign} {figure(asked[name].limit)})" if name in asked else ""


def _beside_untrained(run: Run, fid: Metric) -> str:
    untrained = metric(run.artifacts.metrics, FID_UNTRAINED)
    if untrained is None or fid.value <= 0:
        return ""
    times = untrained.value / fid.value
    if times >= 1.1:
        return f", {figure(times, 2)} times lower than the untrained model’s {figure(untrained.value)}"
    return f"; the untrained model has {figure(untrained.value)}"


def _beside_others(run: Run) -> str:
    real = metric(run.artifacts.metrics, CLIP_SCORE_REAL)
    untrained = metric(run.artifacts.metrics, CLIP_SCORE_UNTRAINED)
    said = [f"real pictures have {figure(real.value)}"] if real else []
    said += [f"the untrained model {figure(untrained.value)}"] if untrained else []
    return "; " + ", ".join(said) if said else ""
