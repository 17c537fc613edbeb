"""`sd-pipeline infra deploy | status | destroy`: the CloudFormation stack around the pipeline."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import Annotated

import typer

from pipeline_definition.commands.options import AsJson, Changes, console, parse_changes, reported_errors
from pipeline_definition.session import Target

app = typer.Typer(
    help="Network, bucket, FSx for Lustre, roles, registry and promotion: one stack.", no_args_is_help=True
)

Stack = Annotated[str, typer.Option("--stack", help="Name of the stack.")]
Region = Annotated[str, typer.Option("--region", help="Region of the stack.")]
Empty = Annotated[bool, typer.Option("--empty", help="Also delete what the bucket and the registry hold.")]


@app.command()
def deploy(stack: Stack = "sd-pipeline", region: Region = "us-east-1", changes: Changes = None) -> None:
    """Create the stack or bring it up to date; prints its outputs.

    Example: sd-pipeline infra deploy --set FileSystemGiB=4800
    """
    with reported_errors():
        from pipeline_definition.infrastructure.stack import Infrastructure

        outputs = Infrastructure(Target(region), stack, _say).deploy(parse_changes(changes))
        sys.stdout.write(json.dumps(outputs, indent=2) + "\n")


@app.command()
def status(stack: Stack = "sd-pipeline", region: Region = "us-east-1", as_json: AsJson = False) -> None:
    """Show the stack, its outputs, and what it costs while it exists.

    Example: sd-pipeline infra status
    """
    with reported_errors():
        from pipeline_definition.infrastructure.stack import Infrastructure

        about = Infrastructure(Target(region), stack, _say).status()
        if as_json:
            sys.stdout.write(json.dumps(asdict(about), indent=2) + "\n")
            return
        _say(f"{stack}: {about.status} {about.reason}".rstrip())
        for name, value in about.outputs.items():
            _say(f"  {name:24} {value}")
        for line in about.costs:
            _say(f"  billed: {line}")


@app.command()
def destroy(stack: Stack = "sd-pipeline", region: Region = "us-east-1", empty: Empty = False) -> None:
    """Delete the stack; refused while the bucket or the registry holds anything, unless --empty.

    Example: sd-pipeline infra destroy
    """
    with reported_errors():
        from pipeline_definition.infrastructure.stack import Infrastructure

        Infrastructure(Target(region), stack, _say).destroy(empty)


def _say(line: str) -> None:
    console.print(line, soft_wrap=True, highlight=False, markup=False)
