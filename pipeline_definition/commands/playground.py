"""`sd-pipeline playground`: the page with the sliders, on this machine, over a local or an AWS endpoint."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from params.programs import ServeArguments
from params.settings import load_settings
from pipeline_definition.commands import options
from pipeline_definition.commands.endpoints import EndpointName, Variant, endpoint_of


def playground(
    endpoint: EndpointName = None,
    variant: Variant = None,
    against: Annotated[
        list[str] | None,
        typer.Option("--against", help="Another endpoint, or /VARIANT of this one, for side by side; repeatable."),
    ] = None,
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", help="0: the first free one from 7860 on.")] = 0,
    open_browser: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
    params: options.Params = options.DEFAULT_PARAMS,
    local: options.Local = False,
    state: options.State = options.DEFAULT_STATE,
) -> None:
    """Open a page for drawing: prompt, negative prompt, sliders, seeds, history, two settings side by side.

    Example: sd-pipeline playground --local --params params/local.yaml --open
    """
    settings = load_settings(params)
    endpoints = [endpoint_of(settings, endpoint, variant, local, state)]
    for name in against or ():
        other, other_variant = (endpoint, name[1:]) if name.startswith("/") else (name, None)
        endpoints.append(endpoint_of(settings, other, other_variant, local, state))

    # Seconds to import: here, not at the top.
    from pipeline_definition.prompting.playground import Playground, launch

    limits = ServeArguments(**settings.endpoint.model_dump(include=set(ServeArguments.model_fields)))
    with tempfile.TemporaryDirectory(prefix="playground-") as folder:
        launch(Playground(endpoints, limits, Path(folder)), host, port, open_browser)
