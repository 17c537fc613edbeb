"""`sd-pipeline upsert | start | status | stop | list | logs`: the pipeline on AWS or on the local control plane."""

from __future__ import annotations

import sys
import time
from typing import Annotated

import typer

from pipeline_definition.commands import options
from pipeline_definition.commands.checks import (
    Stack,
    definition_text,
    filled,
    local_world,
    refuse_findings,
    refuse_offline,
)
from pipeline_definition.commands.options import answer, console, parse_changes, print_json, print_table, say
from pipeline_definition.errors import UsageError
from pipeline_definition.runs.executions import Execution, Executions

POLL_AWS_S, POLL_LOCAL_S = 10.0, 1.0

Follow = Annotated[bool, typer.Option("--follow", "-f", help="Continue until the execution ends.")]
Watch = Annotated[bool, typer.Option("--watch", "-w", help="Live table until the execution ends.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only report what would block the start.")]
StepName = Annotated[str | None, typer.Option("--step", help="Only this step.")]


@options.with_context
def upsert(
    context: options.CommandContext,
    stack: Stack = None,
    as_json: options.AsJson = False,
) -> None:
    """Create the pipeline in SageMaker, or update it to this parameter set.

    Example: sd-pipeline upsert --params params/octank_100gb.yaml --stack sd-pipeline
    """
    settings = filled(context.settings, stack)
    name, account, definition = settings.pipeline_name, settings.account, definition_text(settings)
    if context.local:
        local_world(context)
    arn = Executions(context.target).upsert(name, definition, account.role_arn, account.bucket, account.tags)
    answer(arn, {"pipeline_arn": arn}, as_json)


@options.with_context
def start(
    context: options.CommandContext,
    changes: options.Changes = None,
    dry_run: DryRun = False,
    stack: Stack = None,
    as_json: options.AsJson = False,
) -> None:
    """Start the upserted pipeline, with some parameters changed, once preflight has passed.

    Example: sd-pipeline start --params params/octank_100gb.yaml --set TrainingInstanceCount=8 --dry-run
    """
    from pipeline_definition.checks.budget import filled_in
    from pipeline_definition.checks.choice import chosen_hosts
    from pipeline_definition.jobs.planned import Values, planned_jobs
    from pipeline_definition.models.registry import with_approved_model

    given = parse_changes(changes)
    if not context.local:
        refuse_offline(context.settings, given, stack)
    settings = filled(context.settings, stack)
    executions = Executions(context.target)
    # What SageMaker holds is what will run; reading it back takes a moment, building it anew takes seconds.
    definition = executions.current_definition(settings.pipeline_name)
    if not context.local:
        jobs = planned_jobs(definition, Values(definition, given))
        chosen, lines = chosen_hosts(settings, jobs, given, context.target)
        given |= chosen
        for line in lines:
            say(line)
    else:
        given = {**local_world(context), **given}
    values = filled_in(settings, definition, given)
    values = with_approved_model(context.target, definition, values)
    refuse_findings(settings, definition, values, context.target)
    arn = None if dry_run else executions.start(settings.pipeline_name, values)
    answer(arn or "nothing blocks the start", {"execution_arn": arn, "parameters": values}, as_json)


@options.with_context
def status(
    context: options.CommandContext,
    run: options.RunId = "latest",
    watch: Watch = False,
    as_json: options.AsJson = False,
) -> None:
    """Show an execution's steps, their progress and their cost; exit status 1 if it failed.

    With --json once, or with --watch a line whenever something changed.

    Example: sd-pipeline status --watch
    """
    from pipeline_definition.runs.live_view import print_json_lines, show, table
    from pipeline_definition.runs.watch import Watcher

    arn = Executions(context.target).find(context.settings.pipeline_name, run)
    watcher = Watcher(context.target, arn, POLL_LOCAL_S if context.local else POLL_AWS_S)
    if watch:
        execution = print_json_lines(watcher.snapshots()) if as_json else show(watcher.snapshots(), console)
    else:
        snapshot = watcher.look()
        execution = snapshot.execution
        if as_json:
            print_json(snapshot.as_dict())
        else:
            console.print(table(snapshot))
    raise typer.Exit(1 if execution.status == "Failed" else 0)


@options.with_context
def stop(
    context: options.CommandContext,
    run: options.RunId = "latest",
    as_json: options.AsJson = False,
) -> None:
    """Stop an execution; Train writes a checkpoint first.

    Example: sd-pipeline stop latest
    """
    executions = Executions(context.target)
    arn = executions.find(context.settings.pipeline_name, run)
    executions.stop(arn)
    answer(f"stopping {arn}", {"execution_arn": arn}, as_json)


@options.with_context
def list_executions(
    context: options.CommandContext,
    as_json: options.AsJson = False,
) -> None:
    """List the pipeline's executions, newest first.

    Example: sd-pipeline list --json
    """
    items = Executions(context.target).list(context.settings.pipeline_name)
    if as_json:
        print_json(items)
        return
    rows = (
        (
            item["PipelineExecutionArn"].rsplit("/", 1)[-1],
            item["PipelineExecutionStatus"],
            item["StartTime"].isoformat(sep=" ", timespec="seconds"),
        )
        for item in items
    )
    print_table(("execution", "status", "started"), rows)


@options.with_context
def logs(
    context: options.CommandContext,
    run: options.RunId = "latest",
    step: StepName = None,
    follow: Follow = False,
) -> None:
    """Print the logs of an execution's jobs.

    Example: sd-pipeline logs latest --step Train --follow
    """
    from pipeline_definition.runs.job_logs import JobLog

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
        time.sleep(POLL_LOCAL_S if context.local else POLL_AWS_S)
