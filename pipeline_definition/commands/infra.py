"""`sd-pipeline infra deploy | status | destroy`: the CloudFormation stack around the pipeline."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from params.settings import load_settings
from pipeline_definition.commands.options import Changes, Reply, parse_changes, print_json, say
from pipeline_definition.infrastructure.stack import Infrastructure
from pipeline_definition.session import Target

app = typer.Typer(help="Network, bucket, FSx for Lustre, roles, registry, promotion: one stack.", no_args_is_help=True)

Stack = Annotated[str, typer.Option(help="Name of the stack.")]
Region = Annotated[str, typer.Option(help="Region of the stack.")]
Empty = Annotated[bool, typer.Option("--empty", help="Also delete what the bucket and the registry hold.")]


@app.command()
def deploy(
    stack: Stack = "sd-pipeline",
    region: Region = "us-east-1",
    changes: Changes = None,
    tag: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="Tag of everything, jobs and endpoints too; can be repeated."),
    ] = None,
    params: Annotated[
        Path | None, typer.Option(help="Parameter set: a new stack is where its training hosts are.")
    ] = None,
) -> None:
    """Create the stack or bring it up to date; prints its outputs.

    Example: sd-pipeline infra deploy --params params/sd2_base.yaml --set FileSystemGiB=4800 --tag CostCenter=42
    """
    settings = load_settings(params) if params else None
    infrastructure = Infrastructure(Target(region), stack, say)
    print_json(infrastructure.deploy(parse_changes(changes), parse_changes(tag, "--tag", "KEY=VALUE"), settings))


@app.command()
def status(stack: Stack = "sd-pipeline", region: Region = "us-east-1") -> Reply:
    """Show the stack, its outputs, and what it costs while it exists.

    Example: sd-pipeline infra status
    """
    about = Infrastructure(Target(region), stack, say).status()
    outputs = (f"  {name:24} {value}" for name, value in about.outputs.items())
    billed = (f"  billed: {line}" for line in about.costs)
    return Reply(asdict(about), f"{stack}: {about.status} {about.reason}".rstrip(), *outputs, *billed)


@app.command()
def destroy(stack: Stack = "sd-pipeline", region: Region = "us-east-1", empty: Empty = False) -> None:
    """Delete the stack; refused while the bucket or the registry holds anything, unless --empty.

    Example: sd-pipeline infra destroy
    """
    Infrastructure(Target(region), stack, say).destroy(empty)
