"""`sd-pipeline models ...`: the model registry, from the list of what passed the gate to an approval."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from params.settings import Settings
from pipeline_definition.commands import options
from pipeline_definition.commands.checks import Stack, filled
from pipeline_definition.commands.options import answer, console, print_json, print_table, say
from pipeline_definition.models.registry import ModelPackage, PackageGroup
from pipeline_definition.session import Target

app = typer.Typer(
    help="The model registry: which models passed the gate, and which may go to production.", no_args_is_help=True
)

PACKAGE_HELP = "Model package: its ARN, its version, `latest` or `pretrained`."
Package = Annotated[str, typer.Argument(help=PACKAGE_HELP)]
Reason = Annotated[str, typer.Option("--reason", help="Kept with the package.")]
Out = Annotated[
    Path | None, typer.Option("--out", help="Also fetch metrics, manifests, training record and pictures into here.")
]


@app.command("list")
@options.with_context
def list_packages(
    context: options.CommandContext,
    as_json: options.AsJson = False,
) -> None:
    """List the model packages, newest first.

    Example: sd-pipeline models list --local --params params/local.yaml
    """
    packages = PackageGroup(context.target, context.settings.registry.group).list()
    if as_json:
        print_json([asdict(package) for package in packages])
        return
    rows = (
        (
            str(package.version),
            package.status,
            package.created,
            _short(package.metadata.get("fid")),
            _short(package.metadata.get("clip_score")),
            package.metadata.get("dataset", ""),
        )
        for package in packages
    )
    print_table(("version", "status", "created", "FID", "CLIP score", "data set"), rows)


@app.command()
@options.with_context
def show(
    context: options.CommandContext,
    package: Package = "latest",
    out: Out = None,
    as_json: options.AsJson = False,
) -> None:
    """Show a model package: metrics, data, settings, code, images, throughput, cost, and where its pictures are.

    Example: sd-pipeline models show latest --out package
    """
    from pipeline_definition.models.package_record import PackageFiles, facts

    shown, files = find(context.settings, context.target, package), PackageFiles(context.target)
    fetched = files.fetch(shown, out) if out else []
    record = files.record(shown)
    if as_json:
        evaluated = {"metrics": record.metrics, "data_manifest": record.data_manifest}
        print_json({**asdict(shown), **evaluated, "training_usd": record.training_usd})
        return
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for name, text in facts(record):
        table.add_row(name, text)
    console.print(table)
    if out:
        say(f"{len(fetched)} files in {out}")


@app.command()
@options.with_context
def compare(
    context: options.CommandContext,
    first: Package,
    second: Package = "latest",
    as_json: options.AsJson = False,
) -> None:
    """Compare two model packages: each metric with a verdict on the second, and every difference.

    Example: sd-pipeline models compare 3 latest
    """
    from pipeline_definition.models.package_comparison import compare as compare_records
    from pipeline_definition.models.package_record import PackageFiles

    files = PackageFiles(context.target)
    records = [files.record(find(context.settings, context.target, package)) for package in (first, second)]
    rows = compare_records(*records)
    if as_json:
        print_json([asdict(row) for row in rows])
        return
    print_table(("", first, second, "the second is"), ((r.name, r.first, r.second, r.verdict) for r in rows))


@app.command()
@options.with_context
def approve(
    context: options.CommandContext,
    package: Package,
    reason: Reason = "approved on the command line",
    as_json: options.AsJson = False,
) -> None:
    """Approve a model package for production, which starts its promotion.

    Example: sd-pipeline models approve latest --reason "sheet looked at, FID 12"
    """
    _decide(context, package, "Approved", reason, as_json)


@app.command()
@options.with_context
def reject(
    context: options.CommandContext,
    package: Package,
    reason: Reason = "rejected on the command line",
    as_json: options.AsJson = False,
) -> None:
    """Reject a model package.

    Example: sd-pipeline models reject 3 --reason "colours are off"
    """
    _decide(context, package, "Rejected", reason, as_json)


@app.command("register-pretrained")
@options.with_context
def register(
    context: options.CommandContext,
    stack: Stack = None,
    as_json: options.AsJson = False,
) -> None:
    """Register the pretrained model at data.pretrained_uri, to deploy it alone or next to your own.

    Example: sd-pipeline models register-pretrained --stack sd-pipeline
    """
    from pipeline_definition.models.pretrained_package import register_pretrained

    package = register_pretrained(filled(context.settings, stack), context.target)
    answer(package.arn, asdict(package), as_json)


def find(settings: Settings, target: Target, package: str) -> ModelPackage:
    """Return a package given as its ARN, its version, `latest`, or `pretrained`: the newest that was registered so."""
    from pipeline_definition.models.pretrained_package import pretrained_group

    group = settings.registry.group
    if package == "pretrained":
        return PackageGroup(target, pretrained_group(group)).show("latest")
    return PackageGroup(target, group).show(package)


def _decide(context: options.CommandContext, package: str, status: str, reason: str, as_json: bool) -> None:
    decided = PackageGroup(context.target, context.settings.registry.group).decide(package, status, reason)
    answer(f"{decided.arn} is now {decided.status}", asdict(decided), as_json)


def _short(text: str | None) -> str:
    try:
        return f"{float(text or ''):.3f}"
    except ValueError:
        return ""
