"""`sd-pipeline scale`: an endpoint's hosts by its load."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import Annotated

import typer

from pipeline_definition.commands.options import DEFAULT_PARAMS, AsJson, Params, console, read_settings, reported_errors
from pipeline_definition.session import Target


def scale(
    endpoint: Annotated[str | None, typer.Option("--endpoint", help="Its name; default: the parameter set's.")] = None,
    params: Params = DEFAULT_PARAMS,
    as_json: AsJson = False,
) -> None:
    """Apply endpoint.scaling of the parameter set to the endpoint on AWS; max_instances 0 removes scaling.

    Example: sd-pipeline scale --params params/octank_100gb.yaml
    """
    with reported_errors():
        from pipeline_definition.models.autoscaling import Autoscaling

        settings = read_settings(params)
        name = endpoint or settings.endpoint.name
        scaled = Autoscaling(Target(settings.account.region), name).apply(settings.endpoint)
        if as_json:
            sys.stdout.write(json.dumps([asdict(variant) for variant in scaled], indent=2) + "\n")
        elif not scaled:
            console.print(f"endpoint {name} is not scaled", highlight=False, markup=False)
        for variant in () if as_json else scaled:
            hosts = f"{variant.min_instances} to {variant.max_instances} hosts"
            console.print(f"{name}/{variant.variant}: {hosts}, by {', '.join(variant.policies)}", highlight=False)
