"""`sd-pipeline data show | upload` and `pretrained fetch | upload`: what a training needs, put where jobs read it."""

from pathlib import Path
from typing import Annotated

import typer
from rich.progress import DownloadColumn, Progress

from params.files import write_text
from params.layout import CAPTIONS, SHARDS
from params.s3 import SCHEME
from pipeline_definition.commands import options, own_set
from pipeline_definition.commands.checks import Stack, filled
from pipeline_definition.commands.options import Reply, console, parse_changes, say
from pipeline_definition.errors import UsageError
from pipeline_definition.models import pretrained_folder
from pipeline_definition.runs.laptop import model_files
from pipeline_definition.runs.small_set import too_few_held_out
from pipeline_definition.runs.upload import Upload

app = typer.Typer(help="Look at data before they are paid for.", no_args_is_help=True)
pretrained_app = typer.Typer(help="Assemble pretrained models, put them where jobs read them.", no_args_is_help=True)

Place = Annotated[str, typer.Argument(metavar="PLACE", help="s3:// prefix or folder of shards, latents or pictures.")]
Limits = Annotated[
    Path | None,
    typer.Option("--params", help="Parameter set whose limits the pictures are held against; without one, none."),
]

OwnPlace = Annotated[str, typer.Argument(metavar="PLACE", help="Folder of pictures, or a table of addresses.")]
Name = Annotated[str, typer.Option(help="Name of the data set; default: the folder's and a digest.")]

PretrainedOut = Annotated[Path, typer.Option("--out", help="Folder to assemble.", show_default=True)]
From = Annotated[str, typer.Option("--from", help="Named sources: sd2, or sd2-mse with the VAE of sd-vae-ft-mse.")]
Part = Annotated[
    list[str] | None,
    typer.Option(metavar="PART=SOURCE", help="Source of one part: OWNER/REPOSITORY/FOLDER, or a folder."),
]
UnetWeights = Annotated[bool, typer.Option("--unet-weights", help="The UNet's weights too: to fine-tune, to compare.")]
Folder = Annotated[Path, typer.Argument(metavar="FOLDER", help="What `fetch` assembled.")]


@app.command()
def show(
    place: Place,
    out: Annotated[Path, typer.Option(help="Where to write the page.", show_default=True)] = Path("data.html"),
    params: Limits = None,
    local: options.Local = False,
    state: options.State = options.DEFAULT_STATE,
) -> Reply:
    """Write a page of what went in: pictures with captions, what was left out and why, sizes, captions and copies.

    Examples:

      sd-pipeline data show s3://my-bucket/shards/my-set --params params/sd2_base.yaml

      sd-pipeline data show ./photos --out photos.html
    """
    from pipeline_definition.artifacts.data_sample import DataFiles, DataFolder, DataPrefix
    from pipeline_definition.artifacts.folder_sample import sample_of
    from pipeline_definition.pages.html import to_html
    from pipeline_definition.report.data_page import data_document

    context = options.CommandContext(params or options.DEFAULT_PARAMS, local, state)
    is_stored = place.startswith(SCHEME)
    if not is_stored and not Path(place).is_dir():
        raise UsageError(f"PLACE: {place} is neither an s3:// address nor a folder")

    def files_at(place: str) -> DataFiles:
        return DataPrefix(context.target.client("s3"), place) if is_stored else DataFolder(Path(place))

    written = files_at(place.replace(f"/{SHARDS}/", f"/{CAPTIONS}/"))
    sample = sample_of(files_at(place), place, context.settings.download if params else None, written)
    write_text(out, to_html(data_document(place, sample)))
    return Reply({"page": str(out)}, out)


@app.command()
def upload(
    context: options.CommandContext,
    place: OwnPlace,
    name: Name = "",
    stack: Stack = None,
    replace: options.Replace = False,
) -> None:
    """Check your own pictures or table, upload them, and say how to train on them.

    Each file is sent once, verified by its SHA-256; run again, it sends what is missing.

    Examples:

      sd-pipeline data upload ./photos --params finetune_own --stack sd-pipeline

      sd-pipeline data upload pictures.parquet --local
    """
    from pipeline_definition.artifacts.own_data import own_data

    if place.startswith(SCHEME):
        raise UsageError(f"PLACE: {place} is in S3 already; data.url_table, or --set UrlTable=, names it")
    settings, params = filled(context.settings, stack), context.params
    own = own_data(place, settings.download, None, name)
    own_set.show(own, Path(f"{own.name}.html"))
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


@pretrained_app.command()
def fetch(
    out: PretrainedOut = Path("stable-diffusion"),
    name: From = "sd2",
    part: Part = None,
    unet_weights: UnetWeights = False,
) -> Reply:
    """Assemble VAE, text encoder, tokenizer, scheduler, UNet and evaluator; sources.json says what came from where.

    Examples:

      sd-pipeline pretrained fetch --unet-weights

      sd-pipeline pretrained fetch --part vae=stabilityai/sd-vae-ft-mse --part tokenizer=./my-tokenizer
    """
    changed = parse_changes(part, "--part", "PART=SOURCE")
    own = {key: pretrained_folder.Source(source) for key, source in changed.items()}
    sources = pretrained_folder.named_sources(name) | own
    record = pretrained_folder.fetch(out, sources, unet_weights, say)
    return Reply(record, f"try it: sd-pipeline run-local --data FOLDER --pretrained {out}")


@pretrained_app.command("upload")
def upload_pretrained(
    context: options.CommandContext, folder: Folder, stack: Stack = None, replace: options.Replace = False
) -> None:
    """Upload a folder to data.pretrained_uri, and its evaluator to data.evaluator_uri; what is there is not sent again.

    Example: sd-pipeline pretrained upload ./stable-diffusion --params finetune_own --stack sd-pipeline
    """
    data, client = filled(context.settings, stack).data, context.target.client("s3")
    parts = {data.pretrained_uri: folder, data.evaluator_uri: folder / "evaluator"}
    for uri, place in parts.items():
        if place.is_dir():
            counts = Upload(client, uri, model_files(place), replace=replace).send()
            say(f"{uri}: {', '.join(f'{count} {what}' for what, count in counts.items())}")
