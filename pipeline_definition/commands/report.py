"""`sd-pipeline report RUN`: the run's page, from AWS, from the local control plane, or from a folder without either."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline_definition.commands import options
from pipeline_definition.commands.options import console, print_json, say
from pipeline_definition.errors import UsageError

if TYPE_CHECKING:
    from pipeline_definition.artifacts import Artifacts

ARTIFACTS = "artifacts"
PAGE = "report.html"

Run = Annotated[
    str,
    typer.Argument(metavar="RUN", help="Execution: its ARN, its id, or `latest`; or a run's folder: no connection."),
]
Out = Annotated[Path | None, typer.Option("--out", help="Where to write it.", show_default="<runs>/<id>/report.html")]


@options.with_context
def report(
    context: options.CommandContext,
    run: Run = "latest",
    out: Out = None,
    as_json: options.AsJson = False,
    runs: options.Runs = options.DEFAULT_RUNS,
) -> None:
    """Write a run's page: one self-contained HTML file that opens without a network.

    What the run left is gathered into <runs>/<id>/artifacts; given that folder, the page is made again from it alone.

    Examples:

      sd-pipeline report latest --local --params params/local.yaml

      sd-pipeline report runs/latest --out page.html
    """
    from pipeline_definition.artifacts import Artifacts
    from pipeline_definition.report.page import write_report

    folder = _folder(Path(run))
    if folder is None and "/" in run and not run.startswith("arn:"):
        raise UsageError(f"RUN {run}: no run's folder is there; name one under {runs}, or an execution's id or ARN")
    artifacts = Artifacts.load(folder.resolve()) if folder else _gathered(context, run, runs)
    path = out or artifacts.folder.parent / PAGE
    write_report(artifacts, path)
    left_out = artifacts.execution.get("left_out") or {}
    if as_json:
        print_json({"page": str(path), "status": artifacts.execution.get("status"), "left_out": left_out})
        return
    say(path)
    for name, reason in left_out.items():
        say(f"left out: {name}: {reason}", style="dim")


def _folder(path: Path) -> Path | None:
    """Return the artifacts folder that a path names: itself, or one inside it."""
    return next((folder for folder in (path / ARTIFACTS, path) if (folder / "execution.json").is_file()), None)


def _gathered(context: options.CommandContext, run: str, runs: Path) -> Artifacts:
    from pipeline_definition.artifacts import collect
    from pipeline_definition.report.bill import with_forecast
    from pipeline_definition.runs.executions import Executions

    executions = Executions(context.target)
    execution = executions.describe(executions.find(context.settings.pipeline_name, run))
    with console.status(f"gathering what {execution.id} left ..."):
        return with_forecast(context.settings, collect(context.target, execution, runs / execution.id / ARTIFACTS))
