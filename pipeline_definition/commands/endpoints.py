"""The options of the commands that draw, and the endpoint that they mean."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from params.layout import ASYNC
from params.settings import Settings
from pipeline_definition.commands.options import DEFAULT_RUNS
from pipeline_definition.prompting.async_endpoint import AsyncEndpoint
from pipeline_definition.prompting.endpoint import Endpoint, connect
from pipeline_definition.session import Target

EndpointName = Annotated[
    str | None,
    typer.Option(
        "--endpoint",
        help="Its name, or a server's address such as http://127.0.0.1:8080. Default: the parameter set's.",
    ),
]
Variant = Annotated[str | None, typer.Option("--variant", help="One of the endpoint's variants; default: by weight.")]


def endpoint_of(settings: Settings, name: str | None, variant: str | None, local: bool, state: Path) -> Endpoint:
    """Return the endpoint that `--endpoint`, `--variant` and `--local` mean."""
    own = settings.endpoint
    if own.asynchronous and name in (None, own.name):
        prefix = f"s3://{settings.account.bucket}/{ASYNC}/{own.name}"
        return AsyncEndpoint(_target(settings, local, state), own.name, prefix)
    return connect(lambda: _target(settings, local, state), name or own.name, variant)


def _target(settings: Settings, local: bool, state: Path) -> Target:
    if not local:
        return Target(settings.account.region)
    # The endpoint of an earlier run comes back with its control plane.
    from pipeline_definition.local.client import ensure_up, is_up

    plane = is_up(state) or ensure_up(state, DEFAULT_RUNS, leash=False)
    return Target(settings.account.region, plane.url)
