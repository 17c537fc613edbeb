"""Writes an evaluation's files: samples.json, contact_sheet.png, guidance_curve.png and, last, metrics.json.

The same pictures give the same bytes: nothing here depends on the time or on how often the job was interrupted.
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
from steps.evaluation.contact_sheet import Card, draw_contact_sheet
from steps.evaluation.generation import PictureSet, Work
from steps.evaluation.intervals import Floats
from steps.evaluation.provenance import versions
from steps.evaluation.reference import Reference
from steps.evaluation.results import Entries

REPORTED_SETTINGS: Final = {
    *("guidance_scale", "inference_steps", "sampler", "precision", "batch_size", "seed"),
    *("fid_features", "approved_model", "captions"),
}
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


def write_contact_sheet(folder: Path, reference: Reference, entries: Entries, work: Work) -> None:
    """Write contact_sheet.png: the first prompts, each with its real picture, if any, and the drawn one."""
    row = work.rows[0]
    prompts = row.prompts[: work.arguments.contact_sheet_samples]
    generated = row.store().read([prompt.index for prompt in prompts])
    cards = [
        Card(
            prompt.caption, None if prompt.reference_row is None else reference.read([prompt.reference_row])[0], picture
        )
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

    The scale at which the model is judged is marked. Fewer than two points make no curve and leave no file.
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


def write_metrics(folder: Path, measured: Mapping[str, Any], work: Work) -> None:
    """Write metrics.json: what was measured, and the settings and versions it was computed with."""
    arguments, row = work.arguments, work.rows[0]
    content = {
        **measured,
        **arguments.model_dump(include=REPORTED_SETTINGS),
        "samples": len(row.prompts),
        "requested_samples": arguments.samples,
        "size_px": row.drawing.size_px,
        "pretrained_size_px": arguments.pretrained_size_px or row.drawing.size_px,
        "versions": versions(),
    }
    write_text(folder / METRICS_FILE, _json(content))


def _figure(entries: Entries, name: str, digits: int) -> str:
    entry = entries[name]
    return f"{entry['value']:.{digits}f} ({entry['low']:.{digits}f} to {entry['high']:.{digits}f})"


def _json(content: Any) -> str:
    # NaN is not JSON: SageMaker could not read it.
    return json.dumps(content, indent=2, sort_keys=True, allow_nan=False) + "\n"


def _reach(entry: Mapping[str, float]) -> tuple[tuple[float], tuple[float]]:
    """Return how far an interval reaches below and above its value."""
    return (max(entry["value"] - entry["low"], 0.0),), (max(entry["high"] - entry["value"], 0.0),)
