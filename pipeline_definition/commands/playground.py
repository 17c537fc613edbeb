"""`sd-pipeline playground`: the page with the sliders, on this machine, over a local or an AWS endpoint."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from params.programs import ServeArguments
from pipeline_definition.commands import options
from pipeline_definition.commands.options import EndpointName, Variant, endpoint_of


@options.with_context
def playground(
    context: options.CommandContext,
    endpoint: EndpointName = None,
    variant: Variant = None,
    against: Annotated[
        list[str] | None,
        typer.Option("--against", help="Another endpoint, or /VARIANT of this one, for side by side; repeatable."),
    ] = None,
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", help="0: the first free one from 7860 on.")] = 0,
    open_browser: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
) -> None:
    """Open a page for drawing: prompt, negative prompt, sliders, seeds, history, two settings side by side.

    Example: sd-pipeline playground --local --params params/local.yaml --open
    """
    endpoints = [endpoint_of(context, endpoint, variant)]
    for name in against or ():
        other, other_variant = (endpoint, name[1:]) if name.startswith("/") else (name, None)
        endpoints.append(endpoint_of(context, other, other_variant))

    # Seconds to import: here, not at the top.
    from pipeline_definition.prompting.playground import Playground, launch

    limits = ServeArguments(**context.settings.endpoint.model_dump(include=set(ServeArguments.model_fields)))
    with tempfile.TemporaryDirectory(prefix="playground-") as folder:
        launch(Playground(endpoints, limits, Path(folder)), host, port, open_browser)
