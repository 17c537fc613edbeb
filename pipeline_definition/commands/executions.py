"""`sd-pipeline upsert | start | status | stop | list | logs`: the pipeline on AWS or on the local control plane."""

from __future__ import annotations

import json
import sys
import time
from typing import Annotated

import typer
from rich.table import Table

from pipeline_definition.commands.checks import Stack, definition_text, filled, refuse_findings, refuse_offline
from pipeline_definition.commands.options import (
    DEFAULT_PARAMS,
    DEFAULT_STATE,
    AsJson,
    Changes,
    Local,
    Params,
    RunId,
    State,
    console,
    parse_changes,
    read_settings,
    reported_errors,
    target_of,
)

POLL_AWS_S, POLL_LOCAL_S = 10.0, 1.0

Follow = Annotated[bool, typer.Option("--follow", "-f", help="Continue until the execution ends.")]
Watch = Annotated[bool, typer.Option("--watch", "-w", help="Live table until the execution ends.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only report what would block the start.")]
StepName = Annotated[str | None, typer.Option("--step", help="Only this step.")]


def upsert(
    params: Params = DEFAULT_PARAMS,
    stack: Stack = None,
    local: Local = False,
    state: State = DEFAULT_STATE,
) -> None:
    """Create the pipeline in SageMaker, or update it to this parameter set.

    Example: sd-pipeline upsert --params params/octank_100gb.yaml --stack sd-pipeline
    """
    with reported_errors():
        from pipeline_definition.runs.executions import Executions

        settings = filled(read_settings(params), stack)
        target = target_of(settings, local, state)
        account = settings.account
        arn = Executions(target).upsert(
            settings.pipeline_name, definition_text(settings), account.role_arn, account.bucket
        )
        console.print(arn, soft_wrap=True, highlight=False)


def start(
    params: Params = DEFAULT_PARAMS,
    changes: Changes = None,
    dry_run: DryRun = False,
    stack: Stack = None,
    local: Local = False,
    state: State = DEFAULT_STATE,
) -> None:
    """Start the upserted pipeline, with some parameters changed, once preflight has passed.

    Example: sd-pipeline start --params params/octank_100gb.yaml --set TrainingInstanceCount=8 --dry-run
    """
    with reported_errors():
        from pipeline_definition.checks.budget import filled_in
        from pipeline_definition.models.approved_model import with_approved_model
        from pipeline_definition.runs.executions import Executions

        settings, given = read_settings(params), parse_changes(changes)
        if not local:
            refuse_offline(settings, given, stack)
        settings = filled(settings, stack)
        target = target_of(settings, local, state)
        executions = Executions(target)
        # What SageMaker holds is what will run; reading it back takes a moment, building it anew takes seconds.
        definition = executions.current_definition(settings.pipeline_name)
        values = filled_in(settings, definition, given)
        values = with_approved_model(target, definition, values)
        refuse_findings(settings, definition, values, target)
        if dry_run:
            console.print("nothing stands in the way", highlight=False)
            return
        console.print(executions.start(settings.pipeline_name, values), soft_wrap=True, highlight=False)


def status(
    run: RunId = "latest",
    params: Params = DEFAULT_PARAMS,
    watch: Watch = False,
    as_json: AsJson = False,
    local: Local = False,
    state: State = DEFAULT_STATE,
) -> None:
    """Show an execution's steps, their progress and their cost; exit status 1 if it failed.

    With --json once, or with --watch a line whenever something changed.

    Example: sd-pipeline status --watch
    """
    with reported_errors():
        from pipeline_definition.runs.executions import Executions
        from pipeline_definition.runs.live_view import print_json, show, table
        from pipeline_definition.runs.watch import Watcher

        settings = read_settings(params)
        target = target_of(settings, local, state)
        arn = Executions(target).find(settings.pipeline_name, run)
        watcher = Watcher(target, arn, POLL_LOCAL_S if local else POLL_AWS_S)
        if watch:
            execution = print_json(watcher.snapshots()) if as_json else show(watcher.snapshots(), console)
        else:
            snapshot = watcher.look()
            execution = snapshot.execution
            if as_json:
                sys.stdout.write(json.dumps(snapshot.as_dict(), indent=2) + "\n")
            else:
                console.print(table(snapshot))
    raise typer.Exit(1 if execution.status == "Failed" else 0)


def stop(
    run: RunId = "latest",
    params: Params = DEFAULT_PARAMS,
    local: Local = False,
    state: State = DEFAULT_STATE,
) -> None:
    """Stop an execution; Train writes a checkpoint first.

    Example: sd-pipeline stop latest
    """
    with reported_errors():
        from pipeline_definition.runs.executions import Executions

        settings = read_settings(params)
        executions = Executions(target_of(settings, local, state))
        arn = executions.find(settings.pipeline_name, run)
        executions.stop(arn)
        console.print(f"stopping {arn}", soft_wrap=True, highlight=False)


def list_executions(
    params: Params = DEFAULT_PARAMS,
    as_json: AsJson = False,
    local: Local = False,
    state: State = DEFAULT_STATE,
) -> None:
    """List the pipeline's executions, newest first.

    Example: sd-pipeline list --json
    """
    with reported_errors():
        from pipeline_definition.runs.executions import Executions

        settings = read_settings(params)
        items = Executions(target_of(settings, local, state)).list(settings.pipeline_name)
        if as_json:
            sys.stdout.write(json.dumps(items, indent=2, default=str) + "\n")
            return
        table = Table(box=None, pad_edge=False)
        for header in ("execution", "status", "started"):
            table.add_column(header)
        for item in items:
            started = item["StartTime"].isoformat(sep=" ", timespec="seconds")
            table.add_row(item["PipelineExecutionArn"].rsplit("/", 1)[-1], item["PipelineExecutionStatus"], started)
        console.print(table)


def logs(
    run: RunId = "latest",
    step: StepName = None,
    follow: Follow = False,
    params: Params = DEFAULT_PARAMS,
    local: Local = False,
    state: State = DEFAULT_STATE,
) -> None:
    """Print the logs of an execution's jobs.

    Example: sd-pipeline logs latest --step Train --follow
    """
    with reported_errors():
        from pipeline_definition.runs.executions import ExecutionError, Executions
        from pipeline_definition.runs.job_logs import JobLog

        settings = read_settings(params)
        target = target_of(settings, local, state)
        executions = Executions(target)
        arn = executions.find(settings.pipeline_name, run)
        readers: dict[str, JobLog] = {}
        while True:
            execution = executions.describe(arn)
            chosen = [s for s in execution.steps if step in (None, s.name) and s.metadata]
            if step and not follow and not chosen:
                raise ExecutionError(f"--step {step}: no such step with a log in this execution")
            for one in chosen:
                for stream, line in readers.setdefault(one.name, JobLog(target, one)).new_lines():
                    sys.stdout.write(f"{one.name} {stream.rsplit('/', 1)[-1]}: {line}\n")
            if not follow or execution.is_finished:
                return
            time.sleep(POLL_LOCAL_S if local else POLL_AWS_S)
