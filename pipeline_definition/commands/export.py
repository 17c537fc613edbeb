"""`sd-pipeline export`: a trained model for other people's programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline_definition.commands import options
from pipeline_definition.commands.models import find
from pipeline_definition.errors import UsageError

Half = Annotated[bool, typer.Option("--half", help="Keep all weights in float16: half the size.")]
SingleFile = Annotated[
    Path | None,
    typer.Option("--single-file", help="Also NAME.safetensors, as ComfyUI, A1111 and kohya read it, and NAME.yaml."),
]


@options.with_context
def export(
    context: options.CommandContext,
    model: Annotated[
        str,
        typer.Argument(help="model.tar.gz, its folder or s3:// address; or a model package: ARN, version, `latest`."),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder that is written, for diffusers.")],
    single_file: SingleFile = None,
    half: Half = False,
    hub: Annotated[bool, typer.Option("--hub", help="Also README.md: a model card, as the Hub reads it.")] = False,
    check: Annotated[bool, typer.Option(help="Read back what was written, and draw two denoising steps.")] = True,
) -> None:
    """Export a trained model as a folder for diffusers and as a single file; each draws the model's picture.

    Examples:

      sd-pipeline export latest --out octank --half --single-file octank.safetensors

      sd-pipeline export latest --out octank --hub
    """
    from pipeline_definition.models.export import export_model
    from pipeline_definition.models.model_card import write_card
    from pipeline_definition.models.package_record import PackageFiles

    if single_file and single_file.suffix != ".safetensors":
        raise UsageError(f"--single-file {single_file}: its name must end with .safetensors")
    address, package = model, None
    if not Path(model).exists() and not model.startswith("s3://"):
        if "/" in model and not model.startswith("arn:"):
            raise UsageError(f"{model}: no such file or folder")
        package = find(context.settings, context.target, model)
        address = package.model_uri
    export_model(lambda: context.target, address, out, single_file, half, check)
    if hub:
        files = PackageFiles(context.target) if package else None
        write_card(out, *((files.record(package), files.ledger(package)) if files and package else (None, {})))
