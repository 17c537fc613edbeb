"""How good the model is: every metric with its interval, and FID against CLIP score."""

from __future__ import annotations

import itertools
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
    layout.PRECISION: "precision",
    layout.RECALL: "recall",
    layout.PICK_SCORE: "PickScore",
    "copies": "copies",
}
ROWS = {
    "": "model",
    "_untrained": "untrained model",
    "_pretrained": "generic pretrained model",
    "_approved": "approved model",
    "_real": "real pictures",
}
COMPARISONS = {
    layout.CLIP_SCORE_MARGIN: ("CLIP score", "of real pictures with their own captions above the others'"),
    layout.FID_ABOVE_UNTRAINED: ("FID", "above the untrained model's"),
    layout.CLIP_SCORE_BELOW_UNTRAINED: ("CLIP score", "below the untrained model's"),
    layout.FID_ABOVE_PRETRAINED: ("FID", "above the generic model's"),
    layout.CLIP_SCORE_BELOW_PRETRAINED: ("CLIP score", "below the generic model's"),
    layout.FID_ABOVE_APPROVED: ("FID", "above the approved model's"),
    layout.CLIP_SCORE_BELOW_APPROVED: ("CLIP score", "below the approved model's"),
}
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
    for key, suffix in itertools.product(METRIC_NAMES, ROWS):
        if (measured := metric(metrics, key + suffix)) is not None:
            value = beside(measured.value, (metric(metrics, key) or measured).value)
            judged = _judgement(metrics, key + suffix, measured, asked)
            of_models.append((METRIC_NAMES[key], ROWS[suffix], value, *judged))
    for key, (name, text) in COMPARISONS.items():
        measured = metric(metrics, key)
        # Without another model, the model is compared with itself: the difference is exactly 0.
        if measured is not None and (measured.low, measured.high) != (0.0, 0.0):
            judged = _judgement(metrics, key, measured, asked)
            name = METRIC_NAMES.get(metrics["metrics"][key].get(layout.JUDGED_BY), name)
            differences.append((name, text, figure(measured.value), *judged))
    judgement, numeric = ("interval", "gate", "pictures"), frozenset({2, 3, 5})
    tables = (
        Table(("metric", "of", "value", *judgement), tuple(of_models), numeric),
        Table(("metric", "on the same prompts", "by", *judgement), tuple(differences), numeric),
    )
    return Section("quality", "How good it is", lead, facts, tuple(_charts(run, asked)), tables)


def _charts(run: Run, asked: Mapping[str, Threshold]) -> Iterator[Chart]:
    pairs = []
    for suffix, text in ROWS.items():
        clip_score = metric(run.artifacts.metrics, layout.CLIP_SCORE + suffix)
        fid = metric(run.artifacts.metrics, layout.FID + suffix)
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
