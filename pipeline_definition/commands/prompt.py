"""`sd-pipeline prompt` and `playground`: pictures from an endpoint, into a file and the terminal or on a page."""

from __future__ import annotations

import os
import shutil
import socket
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Literal

import typer

from params.programs import ServeArguments
from pipeline_definition.commands import options
from pipeline_definition.commands.options import EndpointName, Variant, endpoint_of, errors, print_json, say
from pipeline_definition.errors import UsageError

Show = Literal["auto", "kitty", "iterm2", "sixel", "blocks", "none"]
"""How the terminal shows a picture."""
FORMATS = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp"}


@options.with_context
def prompt(
    context: options.CommandContext,
    text: Annotated[str, typer.Argument(help="What to draw.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Picture file: .png, .jpg or .webp.")] = Path("picture.png"),
    negative: Annotated[str | None, typer.Option("--negative", help="What the picture should not show.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="The same seed draws the same picture.")] = None,
    guidance: Annotated[float | None, typer.Option("--guidance", help="Guidance scale.")] = None,
    steps: Annotated[int | None, typer.Option("--steps", help="Denoising steps.")] = None,
    width: Annotated[int | None, typer.Option("--width", help="Pixels, a multiple of 8.")] = None,
    height: Annotated[int | None, typer.Option("--height", help="Pixels, a multiple of 8.")] = None,
    sampler: Annotated[str | None, typer.Option("--sampler", help="ddim, dpm++ or euler.")] = None,
    images: Annotated[int | None, typer.Option("--images", help="Number of pictures, from consecutive seeds.")] = None,
    show: Annotated[Show, typer.Option("--show", help="How to show it in the terminal.")] = "auto",
    endpoint: EndpointName = None,
    variant: Variant = None,
    as_json: options.AsJson = False,
) -> None:
    """Ask the endpoint for a picture.

    Example: sd-pipeline prompt "a small red circle at the top on a blue background" --local --params params/local.yaml
    """
    form = FORMATS.get(out.suffix.lower())
    if form is None:
        raise UsageError(f"--out {out}: a picture ends with one of {', '.join(FORMATS)}")
    request = {
        "prompt": text,
        "negative_prompt": negative,
        "seed": seed,
        "guidance_scale": guidance,
        "steps": steps,
        "width": width,
        "height": height,
        "sampler": sampler,
        "num_images": images,
        "format": form,
    }
    drawn = []
    for number, picture in enumerate(endpoint_of(context, endpoint, variant).draw(request).pictures, 1):
        path = out if number == 1 else out.with_stem(f"{out.stem}-{number}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture.content)
        _show(picture.content, "none" if as_json else show)
        if picture.truncated:
            errors.print("note: the model did not read the end of the prompt: it is too long", highlight=False)
        if picture.flagged:
            errors.print("note: the safety checker replaced this picture with a black one", highlight=False)
        drawn.append({"path": str(path), "seed": picture.seed, "flagged": picture.flagged})
        say(f"{path}  seed {picture.seed}")
    if as_json:
        print_json(drawn)


def _show(content: bytes, show: Show) -> None:
    """Show a picture where a person looks at a terminal that can; `--show NAME` shows it anyway."""
    from pipeline_definition.prompting.terminal import PROTOCOLS, protocol_of, rendered

    chosen = next((protocol for protocol in PROTOCOLS if protocol == show), None)
    if show == "auto" and sys.stdout.isatty():
        chosen = protocol_of(os.environ)
    if chosen is not None:
        sys.stdout.write(rendered(content, chosen, shutil.get_terminal_size().columns))
        sys.stdout.flush()


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
    try:
        socket.create_server((host, port)).close()
    except OSError as error:
        raise UsageError(f"--host {host} --port {port}: {error.strerror}; --port 0 takes a free one") from None
    endpoints = [endpoint_of(context, endpoint, variant)]
    for name in against or ():
        other, other_variant = (endpoint, name[1:]) if name.startswith("/") else (name, None)
        endpoints.append(endpoint_of(context, other, other_variant))

    # Seconds to import: here, not at the top.
    from pipeline_definition.prompting.playground import Playground, launch

    limits = ServeArguments(**context.settings.endpoint.model_dump(include=set(ServeArguments.model_fields)))
    with tempfile.TemporaryDirectory(prefix="playground-") as folder:
        launch(Playground(endpoints, limits, Path(folder)), host, port, open_browser)
