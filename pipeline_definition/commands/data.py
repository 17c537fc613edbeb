"""`sd-pipeline data show | upload`: data of one's own, looked at and put where Download reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.progress import DownloadColumn, Progress

from params.files import write_text
from params.s3 import SCHEME
from pipeline_definition.commands import options
from pipeline_definition.commands.checks import Stack, filled
from pipeline_definition.commands.options import answer, console, say
from pipeline_definition.errors import UsageError

app = typer.Typer(help="Look at data before they are paid for.", no_args_is_help=True)

Place = Annotated[str, typer.Argument(metavar="PLACE", help="s3:// prefix or folder of shards, latents or pictures.")]
Out = Annotated[Path, typer.Option("--out", help="Where to write the page.", show_default=True)]

Limits = Annotated[
    Path | None,
    typer.Option(
        "--params", help="Parameter set whose limits the pictures are held against; without one, no limit is."
    ),
]

OwnPlace = Annotated[str, typer.Argument(metavar="PLACE", help="Folder of pictures, or a table of addresses.")]
Name = Annotated[str, typer.Option("--name", help="Name of the data set; default: the folder's and a digest.")]
Replace = Annotated[bool, typer.Option("--replace", help="Overwrite objects that differ.")]


@app.callback()
def data() -> None:
    """Look at data before they are paid for."""


@app.command()
def show(
    place: Place,
    out: Out = Path("data.html"),
    params: Limits = None,
    as_json: options.AsJson = False,
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
    answer(out, {"page": str(out)}, as_json)


@app.command()
@options.with_context
def upload(
    context: options.CommandContext,
    place: OwnPlace,
    name: Name = "",
    stack: Stack = None,
    replace: Replace = False,
) -> None:
    """Look at pictures or a table of your own, upload them, and say how to train on them.

    Each file is sent once, verified by its SHA-256; run again, it sends what is missing.

    Examples:

      sd-pipeline data upload ./photos --params finetune_own --stack sd-pipeline

      sd-pipeline data upload pictures.parquet --local
    """
    from pipeline_definition.artifacts.own_data import own_data
    from pipeline_definition.commands.own_set import show as show_data
    from pipeline_definition.runs.small_set import too_few_held_out
    from pipeline_definition.runs.upload import Upload

    settings, params = filled(context.settings, stack), context.params
    own = own_data(place, settings.download, None, name)
    show_data(own, Path(f"{own.name}.html"))
    client, uri = context.target.client("s3"), own.uri_in(settings.account.bucket)
    with Progress(*Progress.get_default_columns(), DownloadColumn(), console=console) as progress:
        task = progress.add_task("upload", total=sum(path.stat().st_size for path in own.files.values()))
        transfer = Upload(client, uri, own.files, replace=replace, digests=dict(own.digests))
        counts = transfer.send(lambda sent: progress.advance(task, sent))
    say(f"{uri}: {', '.join(f'{count} {what}' for what, count in counts.items())}")
    if transfer.others:
        say(f"note: {len(transfer.others)} objects there are not in {place} and count as data, as {transfer.others[0]}")
    if problem := too_few_held_out(own.sample.kept, settings.encode.heldout_fraction):
        say(f"note: {problem}, in a copy of {params}")
    if settings.download.source != own.source:
        say(f"note: {params} has download.source {settings.download.source}; these data need {own.source}")
    where = (f" --stack {stack}" if stack else "") + (" --local" if context.local else "")
    say(f"start it: sd-pipeline start --params {params}{where} --set UrlTable={uri} --set DatasetName={own.name}")
