"""`sd-pipeline probe`: jobs of minutes that say what of an account works, before anything is paid for."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from params.files import write_json
from params.settings import Settings
from pipeline_definition.commands import options
from pipeline_definition.commands.checks import Stack, cloud_of, definition_text, filled, refuse_findings
from pipeline_definition.commands.mistakes import INTERRUPTED
from pipeline_definition.commands.options import FittedTable, console, parse_changes, print_json, say
from pipeline_definition.commands.run_local import sigterm_as_interrupt
from pipeline_definition.errors import UsageError
from pipeline_definition.jobs.planned import Values
from pipeline_definition.probing.jobs import Probe, ProbeForecast, ProbeJob
from pipeline_definition.probing.leftovers import Leftovers, ProbePatience
from pipeline_definition.probing.run import ProbeRun, verdict_dict, verdict_lines
from pipeline_definition.runs.laptop import Laptop
from pipeline_definition.runs.live_view import show
from pipeline_definition.session import Target

# An address of AWS's own that anybody may ask, and that lies outside every private network.
PUBLIC_HOST = "checkip.amazonaws.com"

DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would be started, and what it would cost.")]
WayOut = Annotated[
    str | None,
    typer.Option(
        "--way-out",
        metavar="HOST[:PORT]",
        help="Public address that Download's hosts must reach; none: it is not asked for.",
        show_default=f"{PUBLIC_HOST}, on AWS",
    ),
]
WaitMinutes = Annotated[float, typer.Option("--wait-minutes", min=1, help="How long to wait for hosts and results.")]


def probe(
    context: options.CommandContext,
    stack: Stack = None,
    changes: options.Changes = None,
    dry_run: DryRun = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before money is spent.")] = False,
    way_out: WayOut = None,
    wait_minutes: WaitMinutes = 45.0,
    out: Annotated[Path | None, typer.Option(help="Write the result as JSON here.")] = None,
    as_json: options.AsJson = False,
    runs: options.Runs = options.DEFAULT_RUNS,
) -> None:
    """Run jobs of minutes that tell whether hosts, GPUs, network, storage and endpoint work; exit status 1 if not.

    Each instance type of the set runs once, as its steps would: same image, role, network and disk. One endpoint is
    made and deleted again. Nothing stays behind, whatever happens; what a killed probe left, the next one removes.

    Examples:

      sd-pipeline probe --stack sd-pipeline --params params/smoke_aws.yaml --dry-run

      sd-pipeline probe --stack sd-pipeline --params params/octank_100gb.yaml --yes --out probe.json

      sd-pipeline probe --local --params params/local.yaml
    """
    console.stderr = as_json
    settings, given, local = filled(context.settings, stack), parse_changes(changes), context.local
    definition = json.loads(definition_text(settings))
    refuse_findings(settings, definition, given, target=None)
    address = "" if way_out == "none" else way_out or ("" if local else PUBLIC_HOST)
    with _target(settings, context, runs, dry_run) as (target, world):
        one = Probe(settings, definition, Values(definition, {**world, **given}), address, local)
        jobs = one.jobs()
        if not local:
            forecast = ProbeForecast(jobs, target.region)
            console.print(FittedTable(("job", "hosts", "minutes", "on demand"), forecast.rows()))
            say(forecast)
        if dry_run:
            return
        if not (local or yes or typer.confirm("Start?", err=as_json)):
            raise UsageError("nothing was started; --yes does not ask")
        result = _run(one, jobs, target, context.poll_s, wait_minutes * 60.0)
    if out:
        write_json(out, result)
    if as_json:
        print_json(result)
    raise typer.Exit(1 if result["failed"] else 0)


@contextmanager
def _target(
    settings: Settings, context: options.CommandContext, runs: Path, dry_run: bool
) -> Iterator[tuple[Target, Mapping[str, str]]]:
    """Yield where the probe goes and the parameters that only that place knows; on this machine, its world is made."""
    if not context.local or dry_run:
        yield Target(settings.account.region, "http://127.0.0.1" if context.local else None), {}
        return
    from pipeline_definition.local.client import ensure_up

    with ensure_up(context.state, runs, leash=True, cloud=cloud_of(settings)) as plane:
        target = Target(settings.account.region, plane.url)
        with Laptop(settings, target, context.state / "world", options.ROOT).ready() as world:
            yield target, world


def _run(one: Probe, jobs: list[ProbeJob], target: Target, poll_s: float, wait_s: float) -> dict[str, Any]:
    """Run the probe, remove all that it made, and print the verdict; return its result."""
    patience = ProbePatience(poll_s)
    leftovers = Leftovers(target, one.identity.rsplit("-", 1)[0], one.writes, patience)
    if earlier := leftovers.found():
        say(f"removing what an earlier probe left: {', '.join(name for _, name in earlier)}")
        leftovers.remove(say)
    run = ProbeRun(target, one, patience, wait_s)
    with sigterm_as_interrupt():
        try:
            run.start(jobs)
            show(run.snapshots(), console)
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None
        finally:
            kept = _removed(leftovers)
    outcomes = list(run.outcomes.values())
    for line in verdict_lines(outcomes):
        say(line)
    return {"probe": one.identity, "region": target.region, **verdict_dict(outcomes, kept)}


def _removed(leftovers: Leftovers) -> list[str]:
    """Remove what the probe made; return what is still there, each with the command that removes it."""
    say("removing what the probe made ...")
    try:
        kept = leftovers.remove(say)
    except KeyboardInterrupt:
        kept = [f"{name}: interrupted; the next `sd-pipeline probe` removes it" for _, name in leftovers.found()]
    for line in kept:
        say(f"still there: {line}", style="bold red")
    return kept
