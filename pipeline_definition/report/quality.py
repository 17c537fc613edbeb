"""How good the model is: every metric of metrics.json by its name, with its interval and what the gate asks of it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from params import layout
from pipeline_definition.pages import charts
from pipeline_definition.pages.document import Chart, Fact, Section, Table
from pipeline_definition.pages.formats import DASH, beside, count, figure, number, plain, setting
from pipeline_definition.report.gate import Metric, Threshold, asked_of, metric
from pipeline_definition.report.run import Run

LEAD = (
    "On captions that training never saw. The FID of the real pictures is that of one half against the other: what so "
    "few pictures leave between two sets that are equally good."
)
# A metric's name, whose it is where not the model's, and on which side of that one's a difference counts.
NAME = re.compile(r"(?P<metric>.+?)(?:_(?P<side>above|below))?(?:_(?P<of>untrained|pretrained|approved|real))?")
# Metrics that are not told by their own words.
METRIC_NAMES = {
    layout.FID: "FID",
    layout.FID_INFINITY: "FID of infinitely many",
    layout.CLIP_FID: "CLIP-FID",
    layout.CLIP_FID_INFINITY: "CLIP-FID of infinitely many",
    layout.KID: "KID",
    layout.CLIP_SCORE: "CLIP score",
    layout.FID_PYTORCH: "FID, resized as pytorch-fid does",
    layout.FID_CLEAN: "FID, resized as clean-fid does",
    layout.FD_DINOV2: "FD-DINOv2",
    layout.CMMD: "CMMD",
    layout.PICK_SCORE: "PickScore",
}
ROWS = {
    "": "model",
    "untrained": "untrained model",
    "pretrained": "generic pretrained model",
    "approved": "approved model",
    "real": "real pictures",
}
# What stands in a table as a difference though its name tells no other model.
DIFFERENCES = {layout.CLIP_SCORE_MARGIN: ("CLIP score", "of real pictures with their own captions above the others'")}
FACTS = {
    "samples": "pictures judged",
    "guidance_scale": "guidance scale",
    "inference_steps": "denoising steps",
    "sampler": "sampler",
    "size_px": "side in px",
    "fid_features": "FID features",
    "seed": "seed",
}


def quality_section(run: Run) -> Section:
    """Return what Evaluate measured."""
    metrics, asked = run.artifacts.metrics or {}, asked_of(run.artifacts)
    facts = tuple(Fact(label, plain(metrics[key])) for key, label in FACTS.items() if key in metrics)
    notes = (f"{note[:1].upper()}{note[1:]}." for note in map(str, metrics.get("notes") or ()))
    lead = " ".join([LEAD, *notes]) if metrics else ""
    of_models, differences = [], []
    for key in metrics.get("metrics") or ():
        measured, found = metric(metrics, key), NAME.fullmatch(key)
        if measured is None or found is None:
            continue
        base, side, of = found["metric"], found["side"], ROWS[found["of"] or ""]
        label, judged = METRIC_NAMES.get(base, base.replace("_", " ")), _judgement(metrics, key, measured, asked)
        # Without another model, the model is compared with itself: the difference is exactly 0.
        if side and (measured.low, measured.high) == (0.0, 0.0):
            continue
        if side or key in DIFFERENCES:
            label = METRIC_NAMES.get(metrics["metrics"][key].get(layout.JUDGED_BY), label)
            differences.append((*DIFFERENCES.get(key, (label, f"{side} the {of}'s")), figure(measured.value), *judged))
        else:
            of_models.append((label, of, beside(measured.value, (metric(metrics, base) or measured).value), *judged))
    missing = (key for key in asked if metric(metrics, key) is None and metrics)
    of_models += [
        (METRIC_NAMES.get(key, key.replace("_", " ")), "model", DASH, DASH, f"✕ {asked[key]}", DASH) for key in missing
    ]
    judgement, numeric = ("interval", "gate", "pictures"), frozenset({2, 3, 5})
    tables = (
        Table(("metric", "of", "value", *judgement), tuple(of_models), numeric),
        Table(("metric", "on the same prompts", "by", *judgement), tuple(differences), numeric),
    )
    return Section("quality", "How good it is", lead, facts, tuple(_charts(run, asked)), tables)


def _charts(run: Run, asked: Mapping[str, Threshold]) -> Iterator[Chart]:
    pairs = []
    for of, text in ROWS.items():
        names = ("_".join(filter(None, (name, of))) for name in (layout.CLIP_SCORE, layout.FID))
        clip_score, fid = (metric(run.artifacts.metrics, name) for name in names)
        if clip_score is not None and fid is not None:
            pairs.append((_mark(text, clip_score), _mark(text, fid)))
    if not pairs or pairs[0][0].name != ROWS[""]:
        return
    least, most = (asked[name].limit if name in asked else None for name in (layout.CLIP_SCORE, layout.FID))
    limits = (least, most)
    description = "FID and CLIP score: " + "; ".join(f"{x.name} {figure(y.value)}, {figure(x.value)}" for x, y in pairs)
    svg = charts.plane("plane", description, pairs, limits, chosen=ROWS[""])
    yield Chart("FID against CLIP score: low and right is good; dashed is the gate", svg)
    yield from _guidance_chart(run.artifacts.metrics or {}, limits)


def _guidance_chart(metrics: Mapping[str, Any], limits: charts.Limits) -> Iterator[Chart]:
    """Draw what guidance gains in CLIP score and costs in FID, all on the same number of pictures."""
    points = []
    for point in metrics.get(layout.GUIDANCE_CURVE) or ():
        clip_score, fid = (metric({"metrics": point}, name) for name in (layout.CLIP_SCORE, layout.FID))
        if clip_score is not None and fid is not None:
            name = setting(number(point.get("guidance_scale")) or 0.0)
            points.append((_mark(name, clip_score), _mark(name, fid)))
    if len(points) < 2:
        return
    described = "; ".join(f"{x.name}: {figure(y.value)}, {figure(x.value)}" for x, y in points)
    chosen = setting(number(metrics.get("guidance_scale")) or 0.0)
    described = f"FID and CLIP score at each guidance scale: {described}"
    svg = charts.plane("guidance", described, points, limits, chosen, joined=True)
    pictures = number(metrics[layout.GUIDANCE_CURVE][0].get("pictures")) or 0
    yield Chart(f"FID against CLIP score at each guidance scale, {count(pictures)} pictures each", svg)


def _mark(name: str, value: Metric) -> charts.Mark:
    return charts.Mark(name, value.value, value.low, value.high)


def _judgement(
    metrics: Mapping[str, Any], key: str, measured: Metric, asked: Mapping[str, Threshold]
) -> tuple[str, str, str]:
    """Return a metric's interval, what the gate asks of it, and its number of pictures, for an FID by feature, too."""
    pictures, by_feature = (
        number(metrics["metrics"][key].get(fact)) for fact in ("pictures", "pictures_per_dimension")
    )
    shown = count(pictures) if pictures is not None else DASH
    shown += f" ({by_feature:.3g} a feature)" if by_feature is not None else ""
    threshold, judged = asked.get(key), ""
    if threshold is not None:
        bound = "" if threshold.part == "value" else f"{threshold.part} end "
        judged = f"{'✓' if threshold.is_met_by(measured) else '✕'} {bound}{threshold}"
    return measured.interval or DASH, judged, shown
