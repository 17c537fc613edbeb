"""One execution as the console shows it: the parts of the run's page, made from what SageMaker and the logs say now.

Reads SageMaker and CloudWatch Logs, at most once in `poll_s`; writes nothing.
"""

import time
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from pipeline_definition.artifacts import Artifacts
from pipeline_definition.artifacts.archive import redacted
from pipeline_definition.console.step_log import StepLog, metric_patterns
from pipeline_definition.pages.document import Fact, Section
from pipeline_definition.pages.formats import dollars, figure
from pipeline_definition.report import headline
from pipeline_definition.report.run import STYLES, Run, run_of
from pipeline_definition.report.steps import drawing, timeline
from pipeline_definition.report.training import training_section
from pipeline_definition.runs.executions import Execution, Executions, ExecutionStep
from pipeline_definition.runs.job_logs import LOG_GROUPS
from pipeline_definition.runs.live_view import progress_texts
from pipeline_definition.runs.watch import Snapshot, Watcher
from pipeline_definition.session import Target


class LiveRun:
    """Follows one execution; it is for one thread at a time."""

    def __init__(self, target: Target, arn: str, poll_s: float) -> None:
        executions = Executions(target)
        self._target, self._poll_s, self._watcher = target, poll_s, Watcher(target, arn, poll_s)
        self._definition = redacted(executions.definition(arn))
        self._parameters = redacted(executions.parameters(arn))
        self._patterns = metric_patterns(self._definition)
        self._logs: dict[str, StepLog] = {}
        self._snapshot, self._looked_s = self._watcher.look(), time.monotonic()
        self._drawn: tuple[tuple[str, int], Section] | None = None

    def parts(self) -> dict[str, Any]:
        """Return what the template of a run shows."""
        snapshot = self._look()
        execution = snapshot.execution
        trained = next((step for step in reversed(execution.steps) if step.name in self._patterns), None)
        log = self._log(trained) if trained and trained.metadata else None
        run = self._run(execution, log)
        usd = snapshot.cost.usd(execution)
        progress = {name: progress_texts(lines) for name, lines in snapshot.progress.items()}
        return {
            "execution": execution,
            "seal": STYLES.get(execution.status, "waiting"),
            "changed": self._parameters,
            "cost": "" if usd is None else f"about {dollars(usd)} so far",
            "problems": redacted(list(snapshot.problems)),
            "failure": headline.failure(run),
            "drawings": [drawing(direction, run.steps) for direction in ("lying", "standing")],
            "rows": [row | {"note": progress.get(row["step"].name) or row["note"]} for row in timeline(run)],
            "metrics": self._metrics(run, trained.name, log) if trained and log else None,
        }

    def log(self, name: str) -> dict[str, Any]:
        """Return the last lines of a step's log, of the step at work where none is named, and which steps have one."""
        steps = [step for step in self._look().execution.steps if any(map(step.arn, LOG_GROUPS))]
        at_work = next((step for step in reversed(steps) if step.end is None), steps[-1] if steps else None)
        chosen = next((step for step in steps if step.name == name), at_work)
        return {"names": [step.name for step in steps], "step": chosen, "log": self._log(chosen) if chosen else None}

    def _look(self) -> Snapshot:
        if time.monotonic() - self._looked_s >= self._poll_s:
            self._snapshot, self._looked_s = self._watcher.look(), time.monotonic()
        return self._snapshot

    def _log(self, step: ExecutionStep) -> StepLog:
        # A step that was retried has another job, and that another log.
        job = next(filter(None, map(step.arn, LOG_GROUPS)), "")
        if job not in self._logs:
            self._logs[job] = StepLog(self._target, step, self._patterns.get(step.name, {}))
        self._logs[job].read(is_running=step.end is None)
        return self._logs[job]

    def _run(self, execution: Execution, log: StepLog | None) -> Run:
        steps = [{**asdict(step), "seconds": step.seconds} for step in execution.steps]
        about: dict[str, Any] = {"status": execution.status, "failure_reason": execution.failure_reason, "steps": steps}
        begun = [(step.start, step.end or datetime.now(step.start.tzinfo)) for step in execution.steps if step.start]
        if begun:
            about |= {"start": min(start for start, _ in begun), "end": max(end for _, end in begun)}
        told = (redacted(about), self._definition, self._parameters)
        return run_of(Artifacts(Path(), *told, training_log=tuple(log.figures) if log else ()))

    def _metrics(self, run: Run, name: str, log: StepLog) -> Section:
        """Return the newest value of each metric, and the charts of the run's page; drawn anew where some are new."""
        state = name, len(log.figures)
        if self._drawn is None or self._drawn[0] != state:
            newest = {key: value for figures in log.figures for key, value in figures.items() if value is not None}
            facts = tuple(Fact(key.replace("_", " "), figure(value, 4)) for key, value in newest.items())
            charts = training_section(run).charts
            self._drawn = state, Section("metrics", f"Metrics of {name}", "", facts, charts, is_wide=True)
        return self._drawn[1]
