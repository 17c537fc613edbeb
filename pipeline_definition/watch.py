"""Watch an execution until it ends: a live table on a terminal, plain lines in a file or a pipe.

Reads SageMaker and CloudWatch Logs every `interval_s`; writes to the console.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from pipeline_definition.executions import Execution, Executions, Step
from pipeline_definition.job_logs import JobLog, progress_of
from pipeline_definition.session import Target

STYLES = {
    "Succeeded": "green",
    "Failed": "bold red",
    "Executing": "yellow",
    "Stopped": "magenta",
    "Stopping": "magenta",
}
MARKS = {"Succeeded": "✓", "Failed": "✗", "Executing": "▸", "Stopped": "■", "Stopping": "■"}


@dataclass
class Watcher:
    """Follows one execution; `progress` holds the newest progress line of each running step, by log stream."""

    target: Target
    arn: str
    console: Console
    interval_s: float
    executions: Executions = field(init=False)
    logs: dict[str, JobLog] = field(default_factory=dict)
    progress: dict[str, dict[str, Mapping[str, Any]]] = field(default_factory=dict)
    printed: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.executions = Executions(self.target)

    def until_finished(self) -> Execution:
        """Show the execution until it ends; return how it ended."""
        names = step_names(self.executions.definition(self.arn))
        if not self.console.is_terminal:
            return self._print_until_finished()
        with Live(console=self.console, refresh_per_second=4) as live:
            while True:
                execution = self._poll()
                live.update(self.table(execution, names))
                if execution.is_finished:
                    return execution
                time.sleep(self.interval_s)

    def once(self) -> Execution:
        """Show the execution as it stands."""
        execution = self._poll()
        self.console.print(self.table(execution, step_names(self.executions.definition(self.arn))))
        return execution

    def table(self, execution: Execution, names: list[str]) -> Group:
        """Return the live table: a row for each step of the definition, begun or not."""
        table = Table(box=None, pad_edge=False)
        for header in ("", "step", "status", "time", "progress"):
            table.add_column(header, justify="right" if header == "time" else "left")
        for name in names:
            table.add_row(*self._row(execution.step(name) or Step(name, "waiting")))
        heading = Text.assemble(("execution ", "dim"), execution.id, "  ", _styled(execution.status))
        return Group(heading, table)

    def _row(self, step: Step) -> list[Text]:
        status = "cached" if step.cached and step.status == "Succeeded" else step.status
        elapsed = clock(step.seconds) if step.seconds is not None else ""
        said = first_line(step.failure_reason) or self._progress_text(step)
        mark = Text(MARKS.get(step.status, "·"), STYLES.get(step.status, "dim"))
        return [mark, Text(step.name), _styled(step.status, status), Text(elapsed), Text(said, overflow="ellipsis")]

    def _progress_text(self, step: Step) -> str:
        lines = self.progress.get(step.name, {})
        if step.status != "Executing" or not lines:
            return ""
        # Every host reports the job's whole progress; trials report their own, so the list is what tells most.
        return "  ".join(dict.fromkeys(progress_text(line) for line in lines.values()))

    def _poll(self) -> Execution:
        execution = self.executions.describe(self.arn)
        for step in execution.steps:
            if step.status == "Executing":
                self._read_progress(step)
        return execution

    def _read_progress(self, step: Step) -> None:
        if not step.metadata:
            return
        if step.name not in self.logs:
            # Making its client takes as long as a whole look at the execution.
            self.logs[step.name] = JobLog(self.target, step)
        for stream, line in self.logs[step.name].new_lines():
            said = progress_of(line)
            if said is not None:
                self.progress.setdefault(step.name, {})[stream] = said

    def _print_until_finished(self) -> Execution:
        while True:
            execution = self._poll()
            for step in execution.steps:
                self._print_change(step)
            if execution.is_finished:
                return execution
            time.sleep(self.interval_s)

    def _print_change(self, step: Step) -> None:
        status = "cached" if step.cached and step.status == "Succeeded" else step.status
        progress = self._progress_text(step)
        # In a file every quarter of a step is news; every second is noise.
        shown = f"{status} {int(progress.split('%')[0]) // 25}" if "%" in progress else status
        if self.printed.get(step.name) != shown:
            self.printed[step.name] = shown
            elapsed = clock(step.seconds) if step.seconds is not None else ""
            said = first_line(step.failure_reason) or progress
            self.console.print(
                f"{step.name:16} {status:10} {elapsed:>7}  {said}".rstrip(), highlight=False, soft_wrap=True
            )


def step_names(definition: Mapping[str, Any]) -> list[str]:
    """Return the names of a definition's steps in order, those behind conditions included."""
    names: list[str] = []
    for step in definition["Steps"]:
        names.append(step["Name"])
        if step["Type"] == "Condition":
            for branch in ("IfSteps", "ElseSteps"):
                names += step_names({"Steps": step["Arguments"].get(branch, [])})
    return names


def progress_text(said: Mapping[str, Any]) -> str:
    """Return `42% of 51,200 samples, 6.1 it/s, 1:23 left`."""
    done, total = float(said.get("done", 0)), float(said.get("total", 0))
    parts = [f"{100 * done / total:.0f}% of {total:,.0f} {said.get('unit', '')}".rstrip()] if total else []
    if said.get("iterations_per_s"):
        parts.append(f"{said['iterations_per_s']:.2f} it/s")
    elif said.get("per_s"):
        parts.append(f"{said['per_s']:,.1f} {said.get('unit', '')}/s")
    if said.get("remaining_s") is not None and done < total:
        parts.append(f"{clock(float(said['remaining_s']))} left")
    return ", ".join(parts)


def clock(seconds: float) -> str:
    """Return 0:07, 12:34 or 1:02:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def first_line(text: str) -> str:
    """Return the first line of a reason: the rest is in the log."""
    return text.strip().splitlines()[0] if text.strip() else ""


def _styled(status: str, shown: str | None = None) -> Text:
    return Text(shown or status, STYLES.get(status, "dim"))
