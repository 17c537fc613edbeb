"""`sd-pipeline production | promote | rollback`: which model serves, and how another takes its place."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from params.settings import Settings
from pipeline_definition.commands import options
from pipeline_definition.commands.models import PACKAGE_HELP, Package, find
from pipeline_definition.commands.options import console, read_settings, reported_errors, target_of
from pipeline_definition.models.promote import Production, Serving
from pipeline_definition.session import Target

POLL_AWS_S, POLL_LOCAL_S = 10.0, 0.5

Stack = Annotated[str, typer.Option("--stack", help="Stack that has the production endpoint.")]
NoWait = Annotated[bool, typer.Option("--no-wait", help="Start it and do not wait for the end.")]
Beside = Annotated[str | None, typer.Option("--beside", help=f"A second variant. {PACKAGE_HELP}")]
Share = Annotated[float, typer.Option("--share", help="Share of the requests that the second variant serves.")]


def production(
    params: options.Params = options.DEFAULT_PARAMS,
    stack: Stack = "sd-pipeline",
    as_json: options.AsJson = False,
    local: options.Local = False,
    state: options.State = options.DEFAULT_STATE,
) -> None:
    """Show which model packages serve in production, and which configuration `rollback` would restore.

    Example: sd-pipeline production
    """
    with reported_errors():
        _settings, _target, place = _production(params, stack, local, state)
        serving = place.serving()
        if as_json:
            sys.stdout.write(json.dumps(asdict(serving) if serving else None, indent=2) + "\n")
        elif serving is None:
            _say("nothing was promoted yet; `sd-pipeline models approve` does")
        else:
            _say_serving(serving)


def promote(
    package: Package = "latest",
    beside: Beside = None,
    share: Share = 0.1,
    no_wait: NoWait = False,
    params: options.Params = options.DEFAULT_PARAMS,
    stack: Stack = "sd-pipeline",
    local: options.Local = False,
    state: options.State = options.DEFAULT_STATE,
) -> None:
    """Promote an approved model package: blue/green with a canary; an alarm rolls back to the former model.

    An approval starts this by itself; by hand it is for promoting again, or for two models side by side.

    Example: sd-pipeline promote latest --beside pretrained --share 0.1
    """
    with reported_errors():
        settings, target, place = _production(params, stack, local, state)
        second = find(settings, target, beside).arn if beside else ""
        execution = place.promote(find(settings, target, package).arn, second, share)
        _finish(place, execution, no_wait)


def rollback(
    no_wait: NoWait = False,
    params: options.Params = options.DEFAULT_PARAMS,
    stack: Stack = "sd-pipeline",
    local: options.Local = False,
    state: options.State = options.DEFAULT_STATE,
) -> None:
    """Return the production endpoint to what it served before, at once.

    Example: sd-pipeline rollback
    """
    with reported_errors():
        _settings, _target, place = _production(params, stack, local, state)
        _finish(place, place.rollback(), no_wait)


def _production(params: Path, stack: str, local: bool, state: Path) -> tuple[Settings, Target, Production]:
    settings = read_settings(params)
    target = target_of(settings, local, state)
    if local:
        from pipeline_definition.local.promotion import OUTPUTS

        return settings, target, Production(target, OUTPUTS, _say, POLL_LOCAL_S)
    from pipeline_definition.infrastructure.stack import Infrastructure

    outputs = Infrastructure(target, stack).outputs()
    registry = settings.registry.model_copy(update={"group": outputs["ModelPackageGroupName"]})
    return settings.model_copy(update={"registry": registry}), target, Production(target, outputs, _say, POLL_AWS_S)


def _finish(place: Production, execution: str, no_wait: bool) -> None:
    _say(f"started {execution}")
    if not no_wait:
        _say_serving(place.follow(execution))


def _say_serving(serving: Serving) -> None:
    _say(f"{serving.endpoint} is {serving.status} {serving.reason}".rstrip())
    total = sum(variant.weight for variant in serving.variants) or 1.0
    for variant in serving.variants:
        package = variant.package or "a model without a package"
        _say(f"  {variant.variant}: {package}, {variant.weight / total:.0%} of the requests, {variant.instances}")
    _say(f"  rollback goes to: {serving.former or 'nothing, it is the first'}")


def _say(line: str) -> None:
    console.print(line, soft_wrap=True, highlight=False, markup=False)
