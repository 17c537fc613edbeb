"""`sd-pipeline models ...`: the model registry, from the list of what passed the gate to an approval."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from params.settings import Settings
from pipeline_definition.commands import options
from pipeline_definition.commands.checks import Stack, filled
from pipeline_definition.commands.options import console, read_settings, reported_errors, target_of
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
    with reported_errors():
        settings, target = _where(params, local, state)
        packages = PackageGroup(target, settings.registry.group).list()
        if as_json:
            sys.stdout.write(json.dumps([asdict(package) for package in packages], indent=2) + "\n")
            return
        table = Table(box=None, pad_edge=False)
        for header in ("version", "status", "created", "FID", "CLIP score", "data set"):
            table.add_column(header)
        for package in packages:
            said = package.metadata
            numbers = [_short(said.get("fid")), _short(said.get("clip_score"))]
            table.add_row(str(package.version), package.status, package.created, *numbers, said.get("dataset", ""))
        console.print(table)


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
    with reported_errors():
        from pipeline_definition.models.package_record import PackageFiles, facts

        settings, target = _where(params, local, state)
        found, files = find(settings, target, package), PackageFiles(target)
        fetched = files.fetch(found, out) if out else []
        record = files.record(found)
        if as_json:
            evaluated = {"metrics": record.metrics, "data_manifest": record.data_manifest}
            cost = {"training_usd": record.training_usd}
            sys.stdout.write(json.dumps({**asdict(found), **evaluated, **cost}, indent=2) + "\n")
            return
        table = Table(box=None, pad_edge=False, show_header=False)
        table.add_column(style="dim")
        table.add_column(overflow="fold")
        for name, text in facts(record):
            table.add_row(name, text)
        console.print(table)
        if out:
            console.print(f"{len(fetched)} files in {out}", highlight=False, soft_wrap=True)


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
    with reported_errors():
        from pipeline_definition.models.package_comparison import compare as compare_records
        from pipeline_definition.models.package_record import PackageFiles

        settings, target = _where(params, local, state)
        files = PackageFiles(target)
        records = [files.record(find(settings, target, package)) for package in (first, second)]
        rows = compare_records(*records)
        if as_json:
            sys.stdout.write(json.dumps([asdict(row) for row in rows], indent=2) + "\n")
            return
        table = Table(box=None, pad_edge=False)
        for header in ("", first, second, "the second is"):
            table.add_column(header, overflow="fold")
        for row in rows:
            table.add_row(row.name, row.first, row.second, row.verdict)
        console.print(table)


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
    with reported_errors():
        from pipeline_definition.models.pretrained_package import register_pretrained

        settings = filled(read_settings(params), stack)
        package = register_pretrained(settings, target_of(settings, local, state))
        console.print(package.arn, soft_wrap=True, highlight=False)


def find(settings: Settings, target: Target, package: str) -> ModelPackage:
    """Return a package given as its ARN, its version, `latest`, or `pretrained`: the newest that was registered so."""
    from pipeline_definition.models.pretrained_package import pretrained_group

    group = settings.registry.group
    if package == "pretrained":
        return PackageGroup(target, pretrained_group(group)).show("latest")
    return PackageGroup(target, group).show(package)


def _decide(package: str, status: str, reason: str, params: Path, local: bool, state: Path) -> None:
    with reported_errors():
        settings, target = _where(params, local, state)
        decided = PackageGroup(target, settings.registry.group).decide(package, status, reason)
        console.print(f"{decided.arn} is now {decided.status}", soft_wrap=True, highlight=False)


def _where(params: Path, local: bool, state: Path) -> tuple[Settings, Target]:
    settings = read_settings(params)
    return settings, target_of(settings, local, state)


def _short(text: str | None) -> str:
    try:
        return f"{float(text or ''):.3f}"
    except ValueError:
        return ""
