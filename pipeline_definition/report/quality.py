"""How good the model is: the gate's lines, each metric over the versions, and every metric with its interval."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from params import layout
from pipeline_definition.models.gate import Metric, Threshold, asked_of, gate_lines, metric
from pipeline_definition.models.metric_names import NAME, ROWS, metric_name
from pipeline_definition.models.package_record import compare_metrics, judged_metrics, measured_as
from pipeline_definition.models.versions import trend_table
from pipeline_definition.pages import charts
from pipeline_definition.pages.document import Chart, Fact, Section, Table
from pipeline_definition.pages.formats import DASH, beside, count, figure, number, plain, setting
from pipeline_definition.report import LABELS
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
    drawn = (chart for name in own for chart in _trend(name, versions, asked_of(artifacts).get(name)))
    return Section("scorecard", "Scorecard", lead, (), tuple(drawn), (*tables, trend_table(versions)))


def quality_section(run: Run) -> Section:
    metrics = run.artifacts.metrics or {}
    facts = tuple(Fact(label, plain(metrics[key])) for key, label in LABELS["metrics"].items() if key in metrics)
    notes = (f"{note[:1].upper()}{note[1:]}." for note in map(str, metrics.get("notes") or ()))
    lead = " ".join([LABELS["metrics_lead"], *notes]) if metrics else ""
    rows = []
    for key, entry in (metrics.get("metrics") or {}).items():
        measured, found = metric(metrics, key), NAME.fullmatch(key)
        if measured is None or found is None:
            continue
        # Without another model, the model is compared with itself: the difference is exactly 0.
        if not (found["side"] and (measured.low, measured.high) == (0.0, 0.0)):
            value = beside(measured.value, (metric(metrics, found["metric"]) or measured).value)
            value = figure(measured.value) if found["side"] else value
            name = metric_name(key, entry.get(layout.JUDGED_BY) or "")
            rows.append((name, value, measured.interval or DASH, _pictures(entry)))
    table = Table(("metric", "value", "interval", "pictures"), tuple(rows), frozenset({1, 2, 3}))
    return Section("quality", "How good it is", lead, facts, tuple(_charts(run)), (table,))


def _charts(run: Run) -> Iterator[Chart]:
    """Draw the models, and what guidance gains in CLIP score and costs in FID, all on the same number of pictures."""
    metrics, asked = run.artifacts.metrics or {}, asked_of(run.artifacts)
    pairs = [pair for of, text in ROWS.items() for pair in _pairs(text, metrics, of)]
    if not pairs or pairs[0][0] != ROWS[""]:
        return
    least, most = (asked[name].limit if name in asked else None for name in (layout.CLIP_SCORE, layout.FID))
    svg = charts.plane("plane", _described("FID and CLIP score", pairs), pairs, (least, most), chosen=ROWS[""])
    yield Chart("FID against CLIP score: low and right is good; dashed is the gate", svg)
    curve = metrics.get(layout.GUIDANCE_CURVE) or []
    points = [pair for point in curve for pair in _pairs(_scale(point), {"metrics": point})]
    if len(points) > 1:
        described = _described("FID and CLIP score at each guidance scale", points)
        svg = charts.plane("guidance", described, points, (least, most), _scale(metrics), joined=True)
        pictures = count(number(curve[0].get("pictures")) or 0)
        yield Chart(f"FID against CLIP score at each guidance scale, {pictures} pictures each", svg)


def _pairs(name: str, metrics: Mapping[str, Any], of: str = "") -> Iterator[tuple[str, Metric, Metric]]:
    """Yield CLIP score and FID, where there are both."""
    keys = ("_".join(filter(None, (key, of))) for key in (layout.CLIP_SCORE, layout.FID))
    clip_score, fid = (metric(metrics, key) for key in keys)
    if clip_score is not None and fid is not None:
        yield name, clip_score, fid


def _described(what: str, pairs: Sequence[tuple[str, Metric, Metric]]) -> str:
    return f"{what}: {'; '.join(f'{name} {figure(y.value)}, {figure(x.value)}' for name, x, y in pairs)}"


def _scale(point: Mapping[str, Any]) -> str:
    return setting(number(point.get("guidance_scale")) or 0.0)


def _pictures(entry: Mapping[str, Any]) -> str:
    """Return the number of pictures behind a metric, for an FID by feature, too."""
    pictures, by_feature = (number(entry.get(fact)) for fact in ("pictures", "pictures_per_dimension"))
    shown = count(pictures) if pictures is not None else DASH
    return shown + (f" ({by_feature:.3g} a feature)" if by_feature is not None else "")


def _trend(name: str, versions: Sequence[Mapping[str, Any]], asked: Threshold | None) -> Iterator[Chart]:
    title, own = f"{metric_name(name)} by version", measured_as(name, versions[-1]["metrics"][name])
    kin = (one for one in versions if measured_as(name, one["metrics"].get(name, {})) == own)
    found = ((one["version"], metric(one, name)) for one in kin)
    marks = [("", charts.Reading(of), value) for of, value in found if value]
    if len(marks) > 1:
        marks[-1] = ("this run", *marks[-1][1:])
        described = f"{title}: {'; '.join(f'{x.value} {figure(y.value)}' for _, x, y in marks)}"
        limits, axes = (None, asked.limit if asked else None), ("version", metric_name(name))
        svg = charts.plane(f"trend-{name}", described, marks, limits, "this run", joined=True, names=axes)
        yield Chart(title, svg)
