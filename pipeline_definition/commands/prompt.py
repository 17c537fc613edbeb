"""`sd-pipeline prompt`: a picture from the endpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline_definition.commands.options import (
    DEFAULT_RUNS,
    DEFAULT_STATE,
    Local,
    Params,
    State,
    console,
    read_settings,
    reported_errors,
)


def prompt(
    text: Annotated[str, typer.Argument(help="What to draw.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Picture file: .png, .jpg or .webp.")] = Path("picture.png"),
    endpoint: Annotated[str | None, typer.Option("--endpoint", help="Default: the parameter set's.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="The same seed draws the same picture.")] = None,
    guidance: Annotated[float | None, typer.Option("--guidance", help="Guidance scale.")] = None,
    steps: Annotated[int | None, typer.Option("--steps", help="Denoising steps.")] = None,
    params: Params = Path("params/octank_100gb.yaml"),
    local: Local = False,
    state: State = DEFAULT_STATE,
) -> None:
    """Ask the endpoint for a picture.

    Example: sd-pipeline prompt "a small red circle at the top on a blue background" --local --params params/local.yaml
    """
    with reported_errors():
        from pipeline_definition.prompting import prompt_endpoint
        from pipeline_definition.session import Target

        settings = read_settings(params)
        target = Target(settings.account.region)
        if local:
            # The endpoint of an earlier run comes back with its control plane.
            from pipeline_definition.local.client import ensure_up, is_up

            plane = is_up(state) or ensure_up(state, DEFAULT_RUNS, leash=False)
            target = Target(settings.account.region, plane.url)
        request = {"prompt": text, "seed": seed, "guidance_scale": guidance, "steps": steps}
        path = prompt_endpoint(target, endpoint or settings.endpoint.name, request, out)
        console.print(f"{path}", soft_wrap=True, highlight=False)
