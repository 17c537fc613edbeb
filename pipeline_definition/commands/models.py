"""`sd-pipeline models ...`: the model registry, from the list of what passed the gate to an approval."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from params.settings import Settings, load_settings
from pipeline_definition.commands import options
from pipeline_definition.commands.checks import Stack, filled
from pipeline_definition.commands.options import console, print_json, print_table, say, settings_and_target, target_of
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
def list_packages(
    params: options.Params = options.DEFAULT_PARAMS,
    as_json: options.AsJson = False,
    local: options.Local = False,
    state: options.State = options.DEFAULT_STATE,
) -> None:
    """List the model packages, newest first.

    Example: sd-pipeline models list --local --params params/local.yaml
    """
    settings, target = settings_and_target(params, local, state)
    packages = PackageGroup(target, settings.registry.group).list()
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
def show(
    package: Package = "latest",
    out: Out = None,
    params: options.Params = options.DEFAULT_PARAMS,
    as_json: options.AsJson = False,
    local: options.Local = False,
    state: options.State = options.DEFAULT_STATE,
) -> None:
    """Show a model package: metrics, data, settings, code, images, throughput, cost, and where its pictures are.

    Example: sd-pipeline models show latest --out package
    """
    from pipeline_definition.models.package_record import PackageFiles, facts

    settings, target = settings_and_target(params, local, state)
    shown, files = find(settings, target, package), PackageFiles(target)
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
def compare(
    first: Package,
    second: Package = "latest",
    params: options.Params = options.DEFAULT_PARAMS,
    as_json: options.AsJson = False,
    local: options.Local = False,
    state: options.State = options.DEFAULT_STATE,
) -> None:
    """Compare two model packages: each metric with a verdict on the second, and every difference.

    Example: sd-pipeline models compare 3 latest
    """
    from pipeline_definition.models.package_comparison import compare as compare_records
    from pipeline_definition.models.package_record import PackageFiles

    settings, target = settings_and_target(params, local, state)
    files = PackageFiles(target)
    records = [files.record(find(settings, target, package)) for package in (first, second)]
    rows = compare_records(*records)
    if as_json:
        print_json([asdict(row) for row in rows])
        return
    print_table(("", first, second, "the second is"), ((r.name, r.first, r.second, r.verdict) for r in rows))


@app.command()
def approve(
    package: Package,
    reason: Reason = "approved on the command line",
    params: options.Params = options.DEFAULT_PARAMS,
    local: options.Local = False,
    state: options.State = options.DEFAULT_STATE,
) -> None:
    """Approve a model package for production, which starts its promotion.

    Example: sd-pipeline models approve latest --reason "sheet looked at, FID 12"
    """
    _decide(package, "Approved", reason, params, local, state)


@app.command()
def reject(
    package: Package,
    reason: Reason = "rejected on the command line",
    params: options.Params = options.DEFAULT_PARAMS,
    local: options.Local = False,
    state: options.State = options.DEFAULT_STATE,
) -> None:
    """Reject a model package.

    Example: sd-pipeline models reject 3 --reason "colours are off"
    """
    _decide(package, "Rejected", reason, params, local, state)


@app.command("register-pretrained")
def register(
    params: options.Params = options.DEFAULT_PARAMS,
    stack: Stack = None,
    local: options.Local = False,
    state: options.State = options.DEFAULT_STATE,
) -> None:
    """Register the pretrained model at data.pretrained_uri, to deploy it alone or next to your own.

    Example: sd-pipeline models register-pretrained --stack sd-pipeline
    """
    from pipeline_definition.models.pretrained_package import register_pretrained

    settings = filled(load_settings(params), stack)
    package = register_pretrained(settings, target_of(settings, local, state))
    say(package.arn)


def find(settings: Settings, target: Target, package: str) -> ModelPackage:
    """Return a package given as its ARN, its version, `latest`, or `pretrained`: the newest that was registered so."""
    from pipeline_definition.models.pretrained_package import pretrained_group

    group = settings.registry.group
    if package == "pretrained":
        return PackageGroup(target, pretrained_group(group)).show("latest")
    return PackageGroup(target, group).show(package)


def _decide(package: str, status: str, reason: str, params: Path, local: bool, state: Path) -> None:
    settings, target = settings_and_target(params, local, state)
    decided = PackageGroup(target, settings.registry.group).decide(package, status, reason)
    say(f"{decided.arn} is now {decided.status}")


def _short(text: str | None) -> str:
    try:
        return f"{float(text or ''):.3f}"
    except ValueError:
        return ""
