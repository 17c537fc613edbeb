"""`sd-pipeline definition | parameters | upsert | start | status | stop | list | logs | report`: a pipeline's life.

The first two need no connection; the others go to AWS or to the local control plane.
"""

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from params.settings import load_settings
from pipeline_definition.commands import checks, options
from pipeline_definition.commands.checks import Stack, definition_text
from pipeline_definition.commands.options import FittedTable, Reply, console, dim, parse_changes, say
from pipeline_definition.errors import UsageError
from pipeline_definition.runs.executions import Execution, Executions
from pipeline_definition.runs.job_logs import JobLog
from pipeline_definition.runs.live_view import print_json_lines, show, steps_table
from pipeline_definition.runs.watch import Watcher

if TYPE_CHECKING:
    from pipeline_definition.artifacts import Artifacts

ARTIFACTS = "artifacts"
PAGE = "report.html"

RunOrFolder = Annotated[
    str,
    typer.Argument(metavar="RUN", help="Execution: its ARN, its id, or `latest`; or a run's folder: no connection."),
]
ReportFile = Annotated[
    Path | None, typer.Option("--out", help="Where to write it.", show_default="<runs>/<id>/report.html")
]
VotesFile = Annotated[
    Path | None,
    typer.Option(help="Votes of `compare --vote` to show.", show_default="votes.jsonl beside the run's artifacts"),
]


def definition(params: options.Params = options.LOCAL_PARAMS) -> None:
    """Print the pipeline definition JSON: offline, without credentials, the same bytes every time.

    Example: sd-pipeline definition --params params/sd2_base.yaml > definition.json
    """
    sys.stdout.write(definition_text(load_settings(params)) + "\n")


def parameters(params: options.Params = options.LOCAL_PARAMS) -> Reply:
    """Print the pipeline parameters with their defaults: what `--set` and the console can change.

    Example: sd-pipeline parameters --params params/octank_100gb.yaml
    """
    listed = json.loads(definition_text(load_settings(params)))["Parameters"]
    rows = ((p["Name"], p["Type"], str(p.get("DefaultValue", "")), p["Description"]) for p in listed)
    return Reply(listed, FittedTable(("parameter", "type", "default", "what it is"), rows))


def upsert(context: options.CommandContext, stack: Stack = None) -> Reply:
    """Create the pipeline in SageMaker, or update it to this parameter set.

    Example: sd-pipeline upsert --params params/octank_100gb.yaml --stack sd-pipeline
    """
    settings = checks.filled(context.settings, stack)
    name, account, definition = settings.pipeline_name, settings.account, definition_text(settings)
    if context.local:
        checks.local_world(context)
    arn = Executions(context.target).upsert(name, definition, account.role_arn, account.bucket, account.tags)
    return Reply({"pipeline_arn": arn}, arn)


def start(
    context: options.CommandContext,
    changes: options.Changes = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only report what would block the start.")] = False,
    stack: Stack = None,
) -> Reply:
    """Start the upserted pipeline, with some parameters changed, once preflight has passed.

    Example: sd-pipeline start --params params/octank_100gb.yaml --set TrainingInstanceCount=8 --dry-run
    """
    from pipeline_definition.checks.budget import filled_in
    from pipeline_definition.checks.capacity import Capacity
    from pipeline_definition.jobs.planned import Values, planned_jobs
    from pipeline_definition.models.registry import with_approved_model

    given = parse_changes(changes)
    if not context.local:
        checks.refuse_offline(context.settings, given, stack)
    settings, executions = checks.filled(context.settings, stack), Executions(context.target)
    # What SageMaker holds is what will run; reading it back takes a moment, building it anew takes seconds.
    definition = executions.current_definition(settings.pipeline_name)
    if context.local:
        given = {**checks.local_world(context), **given}
    else:
        jobs = planned_jobs(definition, Values(definition, given))
        chosen, lines = Capacity(settings, context.target).chosen_hosts(jobs, given)
        given |= chosen
        for line in lines:
            say(line)
    values = with_approved_model(context.target, definition, filled_in(settings, definition, given))
    checks.refuse_findings(settings, definition, values, context.target)
    arn = None if dry_run else executions.start(settings.pipeline_name, values)
    return Reply({"execution_arn": arn, "parameters": values}, arn or "nothing blocks the start")


def status(
    context: options.CommandContext,
    run: options.RunId = "latest",
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Live table until the execution ends.")] = False,
    as_json: options.AsJson = False,
) -> Reply:
    """Show an execution's steps, their progress and their cost; exit status 1 if it failed.

    With --json once, or with --watch a line whenever something changed.

    Example: sd-pipeline status --watch
    """
    arn = Executions(context.target).find(context.settings.pipeline_name, run)
    watcher = Watcher(context.target, arn, context.poll_s)
    if watch:
        execution = print_json_lines(watcher.snapshots()) if as_json else show(watcher.snapshots(), console)
        raise typer.Exit(execution.status == "Failed")
    snapshot = watcher.look()
    return Reply(snapshot.as_dict(), steps_table(snapshot), status=snapshot.execution.status == "Failed")


def stop(context: options.CommandContext, run: options.RunId = "latest") -> Reply:
    """Stop an execution; Train writes a checkpoint first.

    Example: sd-pipeline stop latest
    """
    executions = Executions(context.target)
    arn = executions.find(context.settings.pipeline_name, run)
    executions.stop(arn)
    return Reply({"execution_arn": arn}, f"stopping {arn}")


def list_executions(context: options.CommandContext) -> Reply:
    """List the pipeline's executions, newest first.

    Example: sd-pipeline list --json
    """
    items = Executions(context.target).list(context.settings.pipeline_name)
    rows = []
    for item in items:
        started = item["StartTime"].isoformat(sep=" ", timespec="seconds")
        rows.append((item["PipelineExecutionArn"].rsplit("/", 1)[-1], item["PipelineExecutionStatus"], started))
    return Reply(items, FittedTable(("execution", "status", "started"), rows))


def logs(
    context: options.CommandContext,
    run: options.RunId = "latest",
    step: Annotated[str | None, typer.Option(help="Only this step.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Continue until the execution ends.")] = False,
) -> None:
    """Print the logs of an execution's jobs.

    Example: sd-pipeline logs latest --step Train --follow
    """
    executions = Executions(context.target)
    arn = executions.find(context.settings.pipeline_name, run)
    readers: dict[str, JobLog] = {}
    execution: Execution | None = None
    while True:
        execution = executions.describe(arn, execution)
        chosen = [s for s in execution.steps if step in (None, s.name) and s.metadata]
        if step and not follow and not chosen:
            raise UsageError(f"--step {step}: no such step with a log in this execution")
        for one in chosen:
            for stream, line in readers.setdefault(one.name, JobLog(context.target, one)).new_lines():
                sys.stdout.write(f"{one.name} {stream.rsplit('/', 1)[-1]}: {line}\n")
        is_behind = any(reader.is_behind for reader in readers.values())
        if not is_behind and (not follow or execution.is_finished):
            return
        time.sleep(context.poll_s)


def artifacts_of(context: options.CommandContext, run: str, runs: Path) -> "Artifacts":
    """Return what a run left: of its folder, or gathered into <runs>/<id>/artifacts with its forecast."""
    from pipeline_definition.artifacts import Artifacts, collect
    from pipeline_definition.models.versions import with_versions
    from pipeline_definition.report.bill import with_forecast

    # A run's folder, or the folder of its artifacts.
    places = (Path(run) / ARTIFACTS, Path(run))
    folder = next((place for place in places if (place / "execution.json").is_file()), None)
    if folder is None and "/" in run and not run.startswith("arn:"):
        raise UsageError(f"RUN {run}: no run's folder is there; name one under {runs}, or an execution's id or ARN")
    if folder:
        return Artifacts.load(folder.resolve())
    executions = Executions(context.target)
    execution = executions.describe(executions.find(context.settings.pipeline_name, run))
    with console.status(f"gathering what {execution.id} left ..."):
        artifacts = collect(context.target, execution, runs / execution.id / ARTIFACTS)
        return with_forecast(context.settings, with_versions(context.target, artifacts))


def report(
    context: options.CommandContext,
    run: RunOrFolder = "latest",
    out: ReportFile = None,
    votes: VotesFile = None,
    runs: options.Runs = options.DEFAULT_RUNS,
) -> Reply:
    """Write a run's page: one self-contained HTML file that opens without a network.

    What the run left is gathered into <runs>/<id>/artifacts; given that folder, the page is made again from it alone.

    Examples:

      sd-pipeline report latest --local --params params/local.yaml

      sd-pipeline report runs/latest --out page.html
    """
    from pipeline_definition.prompting.preference import votes_section
    from pipeline_definition.prompting.votes import VOTES_FILE, VoteFile
    from pipeline_definition.report.page import write_report

    artifacts = artifacts_of(context, run, runs)
    path = out or artifacts.folder.parent / PAGE
    kept = votes or artifacts.folder.parent / VOTES_FILE
    if votes and not votes.is_file():
        raise UsageError(f"--votes {votes}: no such file; `sd-pipeline compare --vote` writes it")
    write_report(artifacts, path, judged=votes_section(VoteFile(kept)) if kept.is_file() else None)
    left_out = artifacts.execution.get("left_out") or {}
    told = {"page": str(path), "status": artifacts.execution.get("status"), "left_out": left_out}
    return Reply(told, path, *(dim(f"left out: {name}: {reason}") for name, reason in left_out.items()))
