"""`sd-pipeline production | promote | rollback | scale`: which model serves, and on how many hosts."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from params.settings import Settings, load_settings
from pipeline_definition.commands import options
from pipeline_definition.commands.models import PACKAGE_HELP, Package, find
from pipeline_definition.commands.options import print_json, say
from pipeline_definition.models.promote import Production, Serving
from pipeline_definition.session import Target

POLL_AWS_S, POLL_LOCAL_S = 10.0, 0.5

Stack = Annotated[str, typer.Option("--stack", help="Stack that has the production endpoint.")]
NoWait = Annotated[bool, typer.Option("--no-wait", help="Start it and do not wait for the end.")]
Beside = Annotated[str | None, typer.Option("--beside", help=f"A second variant. {PACKAGE_HELP}")]
Share = Annotated[float, typer.Option("--share", help="Share of the requests that the second variant serves.")]


@options.with_context
def production(
    context: options.CommandContext,
    stack: Stack = "sd-pipeline",
    as_json: options.AsJson = False,
) -> None:
    """Show which model packages serve in production, and which configuration `rollback` would restore.

    Example: sd-pipeline production
    """
    _settings, _target, place = _production(context, stack)
    serving = place.serving()
    if as_json:
        print_json(asdict(serving) if serving else None)
    elif serving is None:
        say("nothing was promoted yet; `sd-pipeline models approve` does")
    else:
        _say_serving(serving)


@options.with_context
def promote(
    context: options.CommandContext,
    package: Package = "latest",
    beside: Beside = None,
    share: Share = 0.1,
    no_wait: NoWait = False,
    as_json: options.AsJson = False,
    stack: Stack = "sd-pipeline",
) -> None:
    """Promote an approved model package: blue/green with a canary; an alarm rolls back to the former model.

    An approval starts this by itself; by hand it is for promoting again, or for two models side by side.

    Example: sd-pipeline promote latest --beside pretrained --share 0.1
    """
    settings, target, place = _production(context, stack)
    second = find(settings, target, beside).arn if beside else ""
    execution = place.promote(find(settings, target, package).arn, second, share)
    _finish(place, execution, no_wait, as_json)


@options.with_context
def rollback(
    context: options.CommandContext,
    no_wait: NoWait = False,
    as_json: options.AsJson = False,
    stack: Stack = "sd-pipeline",
) -> None:
    """Return the production endpoint to what it served before, at once.

    Example: sd-pipeline rollback
    """
    _settings, _target, place = _production(context, stack)
    _finish(place, place.rollback(), no_wait, as_json)


def scale(
    endpoint: Annotated[str | None, typer.Option("--endpoint", help="Its name; default: the parameter set's.")] = None,
    params: options.Params = options.DEFAULT_PARAMS,
    as_json: options.AsJson = False,
) -> None:
    """Apply endpoint.scaling of the parameter set to the endpoint on AWS; max_instances 0 removes scaling.

    Example: sd-pipeline scale --params params/octank_100gb.yaml
    """
    from pipeline_definition.models.autoscaling import Autoscaling

    settings = load_settings(params)
    name = endpoint or settings.endpoint.name
    variants = Autoscaling(Target(settings.account.region), name).apply(settings.endpoint)
    if as_json:
        print_json([asdict(variant) for variant in variants])
        return
    for variant in variants:
        hosts = f"{variant.min_instances} to {variant.max_instances} hosts"
        say(f"{name}/{variant.variant}: {hosts}, by {', '.join(variant.policies)}")
    if not variants:
        say(f"endpoint {name} is not scaled")


def _production(context: options.CommandContext, stack: str) -> tuple[Settings, Target, Production]:
    settings, target = context.settings, context.target
    if context.local:
        from pipeline_definition.local.promotion import OUTPUTS

        return settings, target, Production(target, OUTPUTS, say, POLL_LOCAL_S)
    from pipeline_definition.infrastructure.stack import Infrastructure

    outputs = Infrastructure(target, stack).outputs()
    registry = settings.registry.model_copy(update={"group": outputs["ModelPackageGroupName"]})
    return settings.model_copy(update={"registry": registry}), target, Production(target, outputs, say, POLL_AWS_S)


def _finish(place: Production, execution: str, no_wait: bool, as_json: bool) -> None:
    say(f"started {execution}")
    serving = None if no_wait else place.follow(execution)
    if serving:
        _say_serving(serving)
    if as_json:
        print_json({"execution_arn": execution, "serving": asdict(serving) if serving else None})


def _say_serving(serving: Serving) -> None:
    say(f"{serving.endpoint} is {serving.status} {serving.reason}".rstrip())
    total = sum(variant.weight for variant in serving.variants) or 1.0
    for variant in serving.variants:
        package = variant.package or "a model without a package"
        say(f"  {variant.variant}: {package}, {variant.weight / total:.0%} of the requests, {variant.instances}")
    say(f"  rollback goes to: {serving.former or 'nothing, it is the first'}")
