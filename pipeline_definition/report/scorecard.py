"""The scorecard: the gate's lines, each metric over the versions, and the comparison with the approved one."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pipeline_definition.models.gate import Threshold, asked_of, gate_lines, metric
from pipeline_definition.models.metric_names import metric_name
from pipeline_definition.models.package_record import compare_metrics, judged_metrics, measured_as
from pipeline_definition.models.versions import trend_table
from pipeline_definition.pages import charts
from pipeline_definition.pages.document import Chart, Section, Table
from pipeline_definition.pages.formats import figure
from pipeline_definition.report.run import Run


def scorecard_section(run: Run) -> Section:
    """Return what the gate asks of the model, and how it stands beside the versions before it."""
    artifacts, own = run.artifacts, judged_metrics(run.artifacts.metrics)
    lines = Table(("metric", "value", "interval", "the gate asks for", "it is"), tuple(gate_lines(artifacts).values()))
    earlier = (artifacts.versions or {}).get("versions")
    if not own or not earlier:
        return Section("scorecard", "Scorecard", tables=(lines,))
    lead = " ".join(f"Version {one['version']}: {one['problem']}." for one in earlier if "problem" in one)
    version = (artifacts.model_package or {}).get("version") or earlier[-1]["version"] + 1
    versions, tables = [*earlier, {"version": version, "status": "this run", "metrics": own}], [lines]
    for approved in [one for one in earlier if one["status"] == "Approved"][-1:]:
        compared = ((metric_name(row.name), *row[1:]) for row in compare_metrics(approved["metrics"], own))
        headers = ("metric", f"approved, version {approved['version']}", "this run", "this run is")
        tables.append(Table(headers, tuple(compared)))
    drawn = (chart for name in own for chart in _chart(name, versions, asked_of(artifacts).get(name)))
    return Section("scorecard", "Scorecard", lead, (), tuple(drawn), (*tables, trend_table(versions)))


def _chart(name: str, versions: Sequence[Mapping[str, Any]], asked: Threshold | None) -> Iterator[Chart]:
    """Draw a metric over the versions that were measured as the last one was."""
    title, own = f"{metric_name(name)} by version", measured_as(name, versions[-1]["metrics"][name])
    kin = (one for one in versions if measured_as(name, one["metrics"].get(name, {})) == own)
    found = ((one["version"], metric(one, name)) for one in kin)
    marks = [(charts.Mark("", of), value.mark("")) for of, value in found if value]
    if len(marks) > 1:
        marks[-1] = (replace(marks[-1][0], name="this run"), marks[-1][1])
        described = f"{title}: {'; '.join(f'{x.value} {figure(y.value)}' for x, y in marks)}"
        limits, axes = (None, asked.limit if asked else None), ("version", metric_name(name))
        svg = charts.plane(f"trend-{name}", described, marks, limits, "this run", joined=True, names=axes)
        yield Chart(title, svg)
