"""The page of a comparison: one HTML file with every pair of pictures, their scores, times and prices.

Reads compare_page.html and the style of the run's page; writes one file that needs no network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from params.files import write_text
from pipeline_definition.pages.data_address import data_address
from pipeline_definition.pages.formats import DASH, count, figure
from pipeline_definition.pages.templates import templates
from pipeline_definition.prompting.comparison import Comparison, Shot, Standing, difference


@dataclass(frozen=True)
class Cell:
    """One picture in its place."""

    name: str
    source: str
    """data: address."""
    facts: str
    best: bool
    """Whether it has the highest CLIP score of its row."""


@dataclass(frozen=True)
class ComparedPrompt:
    """One prompt and seed, as every contender drew it."""

    prompt: str
    seed: int
    cells: tuple[Cell, ...]


def write_page(comparison: Comparison, settings: Mapping[str, Any], path: Path) -> None:
    """Write the page, whole or not at all."""
    write_text(path, render(comparison, settings))


def render(comparison: Comparison, settings: Mapping[str, Any]) -> str:
    """Return the page as HTML; every text in it is escaped."""
    standings = comparison.standings
    names = [standing.contender.name for standing in standings]
    return (
        templates(Path(__file__).parent)
        .get_template("compare_page.html")
        .render(
            title=" beside ".join(names),
            lead=_lead(comparison),
            headers=HEADERS,
            table=[summary(standing, standings[0]) for standing in standings],
            rows=_rows(standings),
            settings=", ".join(f"{name} {value}" for name, value in settings.items()),
            note=comparison.note,
            clip=comparison.clip,
        )
    )


HEADERS = (
    "model",
    "CLIP score",
    "above the first (95 %)",
    "higher in",
    "median wait",
    "95 % within",
    "drawing",
    "per 1,000 images",
    "instance",
)


def summary(standing: Standing, first: Standing) -> tuple[str, ...]:
    """Return a contender's row of the table, beside the first one's."""
    gap = None if standing is first else difference(first, standing)
    usd, score, pictures = standing.usd_per_image, standing.clip_score, len(standing.shots)
    return (
        standing.contender.name,
        DASH if score is None else f"{score:.4f}",
        DASH if gap is None else f"{gap.value:+.4f} ({gap.low:+.4f} to {gap.high:+.4f})",
        DASH if gap is None else f"{count(gap.wins)} of {count(pictures)}",
        f"{standing.latency_s(0.5):.2f} s",
        f"{standing.latency_s(0.95):.2f} s",
        f"{sum(shot.render_s for shot in standing.shots) / pictures:.2f} s",
        DASH if usd is None else f"${figure(1000 * usd)}",
        standing.contender.instance_type or DASH,
    )


def _lead(comparison: Comparison) -> str:
    first, *others = comparison.standings
    asked = f"{count(len(first.shots))} pictures each, from the same prompts and seeds."
    verdicts = []
    for other in others:
        gap = difference(first, other)
        if gap is None:
            continue
        name = other.contender.name
        if gap.low > 0 or gap.high < 0:
            side = "more" if gap.low > 0 else "less"
            verdicts.append(f"{name} shows {side} of the prompts than {first.contender.name}.")
        else:
            verdicts.append(f"By CLIP score, {name} and {first.contender.name} cannot be told apart on these.")
    return " ".join([asked, *verdicts])


def _rows(standings: Sequence[Standing]) -> list[ComparedPrompt]:
    rows = []
    for shots in zip(*(standing.shots for standing in standings), strict=True):
        scores = [shot.clip_score for shot in shots if shot.clip_score is not None]
        best = max(scores, default=None)
        cells = tuple(
            Cell(standing.contender.name, _inline(shot), _facts(shot), best is not None and shot.clip_score == best)
            for standing, shot in zip(standings, shots, strict=True)
        )
        rows.append(ComparedPrompt(shots[0].prompt, shots[0].seed, cells))
    return rows


def _facts(shot: Shot) -> str:
    score = [f"CLIP {shot.clip_score:.3f}"] if shot.clip_score is not None else []
    return ", ".join([*score, f"{shot.elapsed_s:.2f} s"])


def _inline(shot: Shot) -> str:
    return data_address(shot.content, shot.form)
