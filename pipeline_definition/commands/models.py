"""`sd-pipeline models list | show | approve | reject`: the model registry."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from pipeline_definition.commands.options import (
    DEFAULT_STATE,
    AsJson,
    Local,
    Params,
    State,
    console,
    read_settings,
    reported_errors,
    target_of,
)
from pipeline_definition.registry import Registry

app = typer.Typer(help="The model registry: what passed the gate, and what may go to production.", no_args_is_help=True)

Package = Annotated[str, typer.Argument(help="Model package: its ARN, its version, or `latest`.")]
Reason = Annotated[str, typer.Option("--reason", help="Kept with the package.")]
DEFAULT_PARAMS = Path("params/octank_100gb.yaml")


@app.command("list")
def list_packages(
    params: Params = DEFAULT_PARAMS, as_json: AsJson = False, local: Local = False, state: State = DEFAULT_STATE
) -> None:
    """List the model packages, newest first.

    Example: sd-pipeline models list --local --params params/local.yaml
    """
    with reported_errors():
        packages = _registry(params, local, state).list()
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
    params: Params = DEFAULT_PARAMS,
    local: Local = False,
    state: State = DEFAULT_STATE,
) -> None:
    """Show a model package whole.

    Example: sd-pipeline models show latest
    """
    with reported_errors():
        sys.stdout.write(json.dumps(asdict(_registry(params, local, state).show(package)), indent=2) + "\n")


@app.command()
def approve(
    package: Package,
    reason: Reason = "approved on the command line",
    params: Params = DEFAULT_PARAMS,
    local: Local = False,
    state: State = DEFAULT_STATE,
) -> None:
    """Approve a model package for production.

    Example: sd-pipeline models approve latest --reason "sheet looked at, FID 12"
    """
    _decide(package, "Approved", reason, params, local, state)


@app.command()
def reject(
    package: Package,
    reason: Reason = "rejected on the command line",
    params: Params = DEFAULT_PARAMS,
    local: Local = False,
    state: State = DEFAULT_STATE,
) -> None:
    """Reject a model package.

    Example: sd-pipeline models reject 3 --reason "colours are off"
    """
    _decide(package, "Rejected", reason, params, local, state)


def _decide(package: str, status: str, reason: str, params: Path, local: bool, state: Path) -> None:
    with reported_errors():
        decided = _registry(params, local, state).decide(package, status, reason)
        console.print(f"{decided.arn} is now {decided.status}", soft_wrap=True, highlight=False)


def _registry(params: Path, local: bool, state: Path) -> Registry:
    settings = read_settings(params)
    return Registry(target_of(settings, local, state), settings.registry.group)


def _short(text: str | None) -> str:
    try:
        return f"{float(text or ''):.3f}"
    except ValueError:
        return ""
