"""What `upsert`, `start` and `run-local` ask before they act: the stack's addresses, and preflight's findings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from params.settings import Settings
from pipeline_definition.commands.options import UsageError, console
from pipeline_definition.session import Target

Stack = Annotated[str | None, typer.Option("--stack", help="Take account, network and file system from this stack.")]


def filled(settings: Settings, stack: str | None) -> Settings:
    """Return the parameter set with a stack's account, network, file system and images; as it is without a stack."""
    if stack is None:
        return settings
    from pipeline_definition.infrastructure import Infrastructure, fill

    return fill(settings, Infrastructure(Target(settings.account.region), stack).outputs())


def refuse_findings(
    settings: Settings, definition: Mapping[str, Any], values: Mapping[str, str], target: Target | None
) -> None:
    """Print what preflight finds.

    Raises UsageError with the findings that stand in the way.
    """
    from pipeline_definition.preflight import preflight

    findings = preflight(settings, definition, values, target)
    for finding in findings:
        if not finding.blocking:
            console.print(f"note: {finding}", soft_wrap=True, highlight=False, markup=False)
    blocking = [str(finding) for finding in findings if finding.blocking]
    if blocking:
        raise UsageError("\n       ".join(blocking))
