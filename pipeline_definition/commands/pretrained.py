"""`sd-pipeline pretrained fetch | upload`: the models that a training starts from, and that judge it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline_definition.commands import options
from pipeline_definition.commands.checks import Stack, filled
from pipeline_definition.commands.options import print_json, say
from pipeline_definition.errors import UsageError

app = typer.Typer(help="Assemble the pretrained models, and put them where jobs read them.", no_args_is_help=True)

Out = Annotated[Path, typer.Option("--out", help="Folder to assemble.", show_default=True)]
From = Annotated[str, typer.Option("--from", help="Named sources: sd2, or sd2-mse with the VAE of sd-vae-ft-mse.")]
Part = Annotated[
    list[str] | None,
    typer.Option("--part", metavar="PART=SOURCE", help="Source of one part: OWNER/REPOSITORY/FOLDER, or a folder."),
]
UnetWeights = Annotated[bool, typer.Option("--unet-weights", help="The UNet's weights too: to fine-tune, to compare.")]
Folder = Annotated[Path, typer.Argument(metavar="FOLDER", help="What `fetch` assembled.")]
Replace = Annotated[bool, typer.Option("--replace", help="Overwrite objects that differ.")]


@app.callback()
def pretrained() -> None:
    """Assemble the pretrained models, and put them where jobs read them."""


@app.command()
def fetch(
    out: Out = Path("stable-diffusion"),
    name: From = "sd2",
    part: Part = None,
    unet_weights: UnetWeights = False,
    as_json: options.AsJson = False,
) -> None:
    """Assemble VAE, text encoder, tokenizer, scheduler, UNet and evaluator; sources.json says what came from where.

    Examples:

      sd-pipeline pretrained fetch --unet-weights

      sd-pipeline pretrained fetch --part vae=stabilityai/sd-vae-ft-mse --part tokenizer=./my-tokenizer
    """
    from pipeline_definition.models.pretrained_folder import Source, named_sources
    from pipeline_definition.models.pretrained_folder import fetch as fetched

    options.console.stderr = as_json
    sources = named_sources(name)
    for change in part or ():
        key, equals, source = change.partition("=")
        if not equals or not source:
            raise UsageError(f"--part {change}: write it as PART=SOURCE")
        sources[key] = Source(source)
    record = fetched(out, sources, unet_weights, say)
    if as_json:
        print_json(record)
    say(f"try it: sd-pipeline run-local --data FOLDER --pretrained {out}")


@app.command()
@options.with_context
def upload(
    context: options.CommandContext,
    folder: Folder,
    stack: Stack = None,
    replace: Replace = False,
) -> None:
    """Upload a folder to data.pretrained_uri, and its evaluator to data.evaluator_uri; what is there is not sent again.

    Example: sd-pipeline pretrained upload ./stable-diffusion --params finetune_own --stack sd-pipeline
    """
    from pipeline_definition.runs.laptop import model_files
    from pipeline_definition.runs.upload import Upload

    data, client = filled(context.settings, stack).data, context.target.client("s3")
    parts = {data.pretrained_uri: folder, data.evaluator_uri: folder / "evaluator"}
    for uri, place in ((uri, place) for uri, place in parts.items() if place.is_dir()):
        counts = Upload(client, uri, model_files(place), replace=replace).send()
        say(f"{uri}: {', '.join(f'{count} {what}' for what, count in counts.items())}")
