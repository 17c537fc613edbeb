"""The FID-CLIP curve as a picture: what guidance gains in likeness to the caption it pays in likeness to reality."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from params.files import whole_file
from params.layout import CLIP_SCORE, FID, GUIDANCE_CURVE_FILE

LINE: Final = "#3b6fb6"
MARKED: Final = "#c2410c"
INK: Final = "#17191d"
SIZE_INCHES: Final = (7.0, 4.6)
DPI: Final = 150


def draw_guidance_chart(folder: Path, points: Sequence[Mapping[str, Any]], marked_scale: float) -> None:
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


def _reach(entry: Mapping[str, float]) -> tuple[tuple[float], tuple[float]]:
    """Return how far an interval reaches below and above its value."""
    return (max(entry["value"] - entry["low"], 0.0),), (max(entry["high"] - entry["value"], 0.0),)
