"""With what the run was started: what differs from the definition's defaults, and all the rest on request."""

from __future__ import annotations

from pipeline_definition.pages.formats import plain
from pipeline_definition.pages.page import Section, Table
from pipeline_definition.report.run import Run


def parameters_section(run: Run) -> Section:
    """Return the pipeline parameters."""
    values, defaults = run.artifacts.parameters, run.artifacts.defaults
    described = {item["Name"]: item.get("Description", "") for item in run.artifacts.definition.get("Parameters", [])}
    changed = {name: value for name, value in values.items() if value != defaults.get(name)}
    tables = []
    if changed:
        rows: tuple[tuple[str, ...], ...] = tuple(
            (name, plain(value), plain(defaults.get(name)), described.get(name, "")) for name, value in changed.items()
        )
        tables.append(Table(("parameter", "in this run", "default", "what it is"), rows, wraps=True))
    if values:
        rows = tuple((name, plain(value), described.get(name, "")) for name, value in values.items())
        tables.append(
            Table(("parameter", "value", "what it is"), rows, summary=f"All {len(values)} parameters", wraps=True)
        )
    return Section("parameters", "What was changed for this run", _lead(len(changed)), tables=tuple(tables))


def _lead(changed: int) -> str:
    if not changed:
        return "Nothing: every parameter is at its default."
    return f"{changed} parameter{'s' if changed > 1 else ''} differ{'' if changed > 1 else 's'} from the defaults."
