"""Writes what an evaluation leaves: samples.json, contact_sheet.png, guidance_curve.png and, last,
metrics.json.

The same pictures give the same bytes: nothing in here depends on the time or on how often the job was interrupted.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from params.files import whole_file, write_text
from params.layout import (
    CLIP_SCORE,
    CONTACT_SHEET_FILE,
    FID,
    GUIDANCE_CURVE_FILE,
    METRICS_FILE,
    SAMPLES_DIR,
    SAMPLES_FILE,
)
from params.programs import EvaluateArguments
from steps.evaluation.contact_sheet import Card, draw_contact_sheet
from steps.evaluation.generation import PictureSet, Work
from steps.evaluation.intervals import Floats
from steps.evaluation.prompts import Prompt
from steps.evaluation.provenance import versions
from steps.evaluation.reference import Pictures, Reference
from steps.evaluation.results import Entries

LINE: Final = "#3b6fb6"
MARKED: Final = "#c2410c"
INK: Final = "#17191d"
SIZE_INCHES: Final = (7.0, 4.6)
DPI: Final = 150


def write_samples(folder: Path, row: PictureSet, cosines: Floats) -> None:
    """Write samples.json: for each picture its caption, seed, file and CLIP score."""
    store = row.store()
    samples = [
        {
            "index": prompt.index,
            "caption": prompt.caption,
            "seed": prompt.seed,
            "file": f"{SAMPLES_DIR}/{store.path(prompt.index).name}",
            "clip_score": round(float(cosine), 6),
        }
        for prompt, cosine in zip(row.prompts, cosines, strict=True)
    ]
    write_text(folder / SAMPLES_FILE, _json(samples))


def write_contact_sheet(folder: Path, reference: Reference, entries: Entries, work: Work, count: int) -> None:
    """Write contact_sheet.png: the first `count` prompts, the real picture, where there is one, beside the drawn."""
    row = work.rows[0]
    prompts = row.prompts[:count]
    generated = row.store().read([prompt.index for prompt in prompts])
    cards = [
        Card(prompt.caption, _real_picture(reference, prompt), picture)
        for prompt, picture in zip(prompts, generated, strict=True)
    ]
    drawing = row.drawing
    title = f"FID {_figure(entries, FID, 1)}   CLIP score {_figure(entries, CLIP_SCORE, 3)}"
    subtitle = (
        f"{len(cards)} of {len(row.prompts)} held-out captions, real and generated   "
        f"guidance {drawing.guidance_scale:g}, {drawing.inference_steps} steps of {drawing.sampler}, "
        f"{drawing.size_px} px   in brackets: 95 % intervals"
    )
    draw_contact_sheet(folder / CONTACT_SHEET_FILE, cards, title, subtitle)


def write_guidance_curve(folder: Path, points: Sequence[Mapping[str, Any]], marked_scale: float) -> None:
    """Write guidance_curve.png: CLIP score across, FID up, both with their intervals, and each point's guidance scale.

    The scale that the model is judged at is marked. Fewer than two points make no curve, and no file.
    """
    path = folder / GUIDANCE_CURVE_FILE
    if len(points) < 2:
        path.unlink(missing_ok=True)
        return
    figure = Figure(figsize=SIZE_INCHES, dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    x, y = ([point[name]["value"] for point in points] for name in (CLIP_SCORE, FID))
    axes.plot(x, y, "-", color=LINE, linewidth=1.5, zorder=1)
    for point in points:
        scale = float(point["guidance_scale"])
        colour = MARKED if scale == marked_scale else LINE
        place = (point[CLIP_SCORE]["value"], point[FID]["value"])
        axes.errorbar(*place, _reach(point[FID]), _reach(point[CLIP_SCORE]), "o", color=colour, elinewidth=1)
        axes.annotate(f"{scale:g}", place, (6, 6), textcoords="offset points", color=colour)
    axes.set_xlabel("CLIP score (higher shows more of the caption)")
    axes.set_ylabel("FID (lower is closer to real pictures)")
    axes.set_title(f"Guidance scales, {points[0]['pictures']} pictures each; 95 % intervals", color=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    # Without the library's name and version the same points give the same bytes.
    canvas: Any = FigureCanvasAgg(figure)
    with whole_file(path) as partial:
        canvas.print_png(partial, metadata={"Software": None})


def write_metrics(
    folder: Path, measured: Mapping[str, Any], arguments: EvaluateArguments, row: PictureSet, about: Mapping[str, Any]
) -> None:
    """Write metrics.json: what was measured, what it stands on, and what it was computed with."""
    content = {
        **measured,
        **about,
        "samples": len(row.prompts),
        "requested_samples": arguments.samples,
        "guidance_scale": arguments.guidance_scale,
        "inference_steps": arguments.inference_steps,
        "sampler": arguments.sampler,
        "size_px": row.drawing.size_px,
        "pretrained_size_px": arguments.pretrained_size_px or row.drawing.size_px,
        "precision": arguments.precision,
        "batch_size": arguments.batch_size,
        "seed": arguments.seed,
        "fid_features": arguments.fid_features,
        "approved_model": arguments.approved_model,
        "captions": arguments.captions,
        "versions": versions(),
    }
    write_text(folder / METRICS_FILE, _json(content))


def _real_picture(reference: Reference, prompt: Prompt) -> Pictures | None:
    return None if prompt.reference_row is None else reference.read([prompt.reference_row])[0]


def _figure(entries: Entries, name: str, digits: int) -> str:
    entry = entries[name]
    return f"{entry['value']:.{digits}f} ({entry['low']:.{digits}f} to {entry['high']:.{digits}f})"


def _json(content: Any) -> str:
    # A metric that is not a number is no JSON: allow_nan would write what SageMaker cannot read.
    return json.dumps(content, indent=2, sort_keys=True, allow_nan=False) + "\n"


def _reach(entry: Mapping[str, float]) -> tuple[tuple[float], tuple[float]]:
    """Return how far an interval reaches below and above its value."""
    return (max(entry["value"] - entry["low"], 0.0),), (max(entry["high"] - entry["value"], 0.0),)
