"""Shows an execution while it runs: a live table on a terminal, plain lines in a file or a pipe, JSON for programs.

Reads the watcher's snapshots; writes to a console, or to standard output.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from pipeline_definition.pages.formats import dollars
from pipeline_definition.runs.executions import Execution, ExecutionStep
from pipeline_definition.runs.watch import Progress, Snapshot

STYLES = {"Succeeded": "green", "Failed": "bold red", "Executing": "yellow"}
STYLES |= dict.fromkeys(("Stopped", "Stopping"), "magenta")
MARKS = {"Succeeded": "✓", "Failed": "✗", "Executing": "▸", "Stopped": "■", "Stopping": "■"}
BAR_WIDTH = 16


def show(snapshots: Iterable[Snapshot], console: Console) -> Execution:
    """Show an execution until it has ended; return how it ended."""
    if not console.is_terminal:
        return _print_lines(snapshots, console)
    with Live(console=console, refresh_per_second=4) as live:
        for snapshot in snapshots:
            live.update(steps_table(snapshot))
    return snapshot.execution  # a watcher looks at least once


def print_json_lines(snapshots: Iterable[Snapshot]) -> Execution:
    """Print a JSON line for each snapshot that differs from the one before; return how the execution ended."""
    printed = ""
    for snapshot in snapshots:
        line = json.dumps(snapshot.as_dict())
        if line != printed:
            print(line, flush=True)
            printed = line
    return snapshot.execution


def steps_table(snapshot: Snapshot) -> Group:
    """Return a row for each step of the definition, begun or not, under the execution and its cost."""
    priced = bool(snapshot.cost.usd_per_hour)
    rows = Table(box=None, pad_edge=False)
    for header in ("", "step", "status", "time", *(["cost"] if priced else []), "", "progress"):
        right = header in ("time", "cost")
        rows.add_column(header, justify="right" if right else "left", overflow="ellipsis", no_wrap=header != "progress")
    for step in snapshot.steps():
        rows.add_row(*_row(snapshot, step, priced))
    name, usd = snapshot.execution.id, snapshot.cost.usd(snapshot.execution)
    cost = "" if usd is None else f"  about {dollars(usd)} so far"
    cost = "  on this machine: nothing to pay" if snapshot.is_local else cost
    heading = Text.assemble(("execution ", "dim"), name, "  ", _styled(snapshot.execution.status), (cost, "dim"))
    return Group(heading, rows, *(Text(f"warning: {problem}", "yellow") for problem in snapshot.problems))


def _print_lines(snapshots: Iterable[Snapshot], console: Console) -> Execution:
    printed: dict[str, str] = {}
    for snapshot in snapshots:
        news = {problem: ("", f"warning: {problem}") for problem in snapshot.problems}
        for step in snapshot.execution.steps:
            known = _fractions(snapshot, step)
            # A file gets a line for every quarter of a step, not for every second.
            state = f"{step.status} {int(4 * max(known))}" if known else step.status
            elapsed, usd = clock(step.seconds) if step.seconds is not None else "", snapshot.cost.step_usd(step)
            cost = f" {dollars(usd):>9}" if usd is not None else ""
            line = f"{step.name:16} {_status(step):10} {elapsed:>7}{cost}  {_detail(snapshot, step)}"
            news[step.name] = (state, line.rstrip())
        for about, (state, line) in news.items():
            if printed.get(about) != state:
                printed[about] = state
                console.print(line, highlight=False, markup=False, soft_wrap=True)
    return snapshot.execution


def _fractions(snapshot: Snapshot, step: ExecutionStep) -> list[float]:
    """Return how much is done, from 0 to 1, for each host or trial whose progress line tells."""
    lines = snapshot.progress.get(step.name, {}).values()
    known = ((float(line.get("done", 0)), float(line.get("total", 0))) for line in lines)
    return [min(1.0, done / total) for done, total in known if total > 0]


def _row(snapshot: Snapshot, step: ExecutionStep, priced: bool) -> list[RenderableType]:
    usd, known = snapshot.cost.step_usd(step), _fractions(snapshot, step)
    bar = ProgressBar(total=len(known), completed=sum(known), width=BAR_WIDTH) if known else Text("")
    return [
        Text(MARKS.get(step.status, "·"), STYLES.get(step.status, "dim")),
        Text(step.name),
        _styled(step.status, _status(step)),
        Text(clock(step.seconds) if step.seconds is not None else ""),
        *([Text(dollars(usd) if usd is not None else "")] if priced else []),
        bar,
        Text(_detail(snapshot, step), overflow="ellipsis"),
    ]


def _detail(snapshot: Snapshot, step: ExecutionStep) -> str:
    # The rest of a reason is in the log.
    return step.failure_reason.strip().partition("\n")[0] or progress_texts(snapshot.progress.get(step.name, {}))


def _status(step: ExecutionStep) -> str:
    return "cached" if step.cached and step.status == "Succeeded" else step.status


def _styled(status: str, shown: str | None = None) -> Text:
    return Text(shown or status, STYLES.get(status, "dim"))


def progress_texts(lines: Progress) -> str:
    """Return a step's progress: every host reports the job's whole, trials report their own."""
    return "  ".join(dict.fromkeys(map(progress_text, lines.values())))


def progress_text(line: Mapping[str, Any]) -> str:
    """Return `42% of 51,200 samples, 6.1 it/s, 1:23 left, $12.40 so far, $17.10 to go`."""
    done, total, unit = float(line.get("done", 0)), float(line.get("total", 0)), line.get("unit", "")
    parts = [f"{100 * done / total:.0f}% of {total:,.0f} {unit}".rstrip()] if total else []
    if line.get("iterations_per_s"):
        parts.append(f"{line['iterations_per_s']:.2f} it/s")
    elif line.get("per_s"):
        parts.append(f"{line['per_s']:,.1f} {unit}/s")
    if line.get("remaining_s") is not None and done < total:
        parts.append(f"{clock(float(line['remaining_s']))} left")
    if line.get("cost_usd") is not None:
        parts.append(f"{dollars(float(line['cost_usd']))} so far")
    if line.get("remaining_usd") is not None and done < total:
        parts.append(f"{dollars(float(line['remaining_usd']))} to go")
    parts += [f"{host} is set aside ({cause})" for host, cause in line.get("troubles", {}).items()]
    return ", ".join(parts)


def clock(seconds: float) -> str:
    """Return 0:07, 12:34 or 1:02:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
