"""What `upsert`, `start` and `run-local` need before they act: addresses and prices filled in, preflight's findings."""

import json
import os
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from params.cloud import Cloud
from params.settings import Settings
from pipeline_definition.checks.findings import Finding
from pipeline_definition.commands.options import ROOT, CommandContext, say
from pipeline_definition.cost.host_hours import priced
from pipeline_definition.definition.pipeline import definition_of
from pipeline_definition.errors import UsageError
from pipeline_definition.infrastructure.stack import Infrastructure, fill
from pipeline_definition.local.container_engine import ENGINES, ContainerEngine
from pipeline_definition.runs.laptop import Laptop
from pipeline_definition.session import Target

Stack = Annotated[str | None, typer.Option(help="Take account, network and file system from this stack.")]


def filled(settings: Settings, stack: str | None) -> Settings:
    """Return the parameter set with a stack's account, network, file system and images; as it is without a stack."""
    if stack is None:
        return settings
    return fill(settings, Infrastructure(Target(settings.account.region), stack).outputs())


def local_world(context: CommandContext) -> dict[str, str]:
    """Make what an account would hold, for as long as the local control plane is up; return what only it knows."""
    from pipeline_definition.local.client import is_up

    plane = is_up(context.state)
    if context.settings.local is None or plane is None:
        return {}
    laptop = Laptop(context.settings, context.target, context.state / "world", ROOT, until=plane.pid)
    with laptop.ready() as world:
        return world


def definition_text(settings: Settings) -> str:
    """Return the definition of a parameter set, the prices of its training hosts filled in as they are today."""
    return definition_of(priced(settings))


def engine_of(backend: str) -> ContainerEngine | None:
    """Return what runs jobs in their images; None for processes."""
    return ContainerEngine.find(backend, os.environ) if backend in ENGINES else None


def cloud_of(settings: Settings) -> Cloud:
    return settings.local.cloud if settings.local else Cloud()


def refuse_offline(settings: Settings, values: Mapping[str, str], stack: str | None) -> None:
    """Refuse what needs no account to be told, before one is asked.

    The set's own definition is judged: where another was upserted, that comes next. What a stack fills in is not judged
    yet. Raises UsageError with the findings.
    """
    from pipeline_definition.checks.preflight import parameter_findings, preflight

    definition = json.loads(definition_text(settings))
    unknown = list(parameter_findings(definition, values))
    _refuse(unknown or ([] if stack else preflight(settings, definition, values)))


def refuse_findings(
    settings: Settings, definition: Mapping[str, Any], values: Mapping[str, str], target: Target | None
) -> None:
    """Print what preflight finds. Raises UsageError with the findings that block the start."""
    from pipeline_definition.checks.preflight import preflight

    findings = preflight(settings, definition, values, target)
    for finding in findings:
        if not finding.blocking:
            say(f"note: {finding}")
    _refuse(findings)


def _refuse(findings: list[Finding]) -> None:
    blocking = [str(finding) for finding in findings if finding.blocking]
    if blocking:
        raise UsageError("\n       ".join(blocking))
