"""`sd-pipeline data show PLACE`: the page of shards, latents or a folder of pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from params.files import write_text
from params.s3 import SCHEME
from pipeline_definition.commands import options
from pipeline_definition.commands.options import UsageError, console

app = typer.Typer(help="Look at data before they are paid for.", no_args_is_help=True)

Place = Annotated[str, typer.Argument(metavar="PLACE", help="s3:// prefix or folder of shards, latents or pictures.")]
Out = Annotated[Path, typer.Option("--out", help="Where to write the page.", show_default=True)]

Limits = Annotated[
    Path | None,
    typer.Option(
        "--params", help="Parameter set whose limits the pictures are held against; without one, no limit is."
    ),
]


@app.callback()
def data() -> None:
    """Look at data before they are paid for."""


@app.command()
def show(
    place: Place,
    out: Out = Path("data.html"),
    params: Limits = None,
    local: options.Local = False,
    state: options.State = options.DEFAULT_STATE,
) -> None:
    """Write a page of what went in: pictures with captions, what was left out and why, sizes, captions and copies.

    Examples:

      sd-pipeline data show s3://my-bucket/shards/my-set --params params/sd2_base.yaml

      sd-pipeline data show ./photos --out photos.html
    """
    from pipeline_definition.artifacts.data_files import DataFiles, DataFolder, DataPrefix
    from pipeline_definition.artifacts.folder_sample import sample_of
    from pipeline_definition.pages.html import to_html
    from pipeline_definition.report.data_page import data_document

    files: DataFiles
    context = options.CommandContext(params or options.DEFAULT_PARAMS, local, state)
    if place.startswith(SCHEME):
        files = DataPrefix(context.target.client("s3"), place)
    elif Path(place).is_dir():
        files = DataFolder(Path(place))
    else:
        raise UsageError(f"PLACE: {place} is neither an s3:// address nor a folder")
    write_text(
        out, to_html(data_document(place, sample_of(files, place, context.settings.download if params else None)))
    )
    console.print(str(out), soft_wrap=True, highlight=False)
