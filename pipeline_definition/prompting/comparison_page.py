"""The page of a comparison: one HTML file with every pair of pictures, their scores, times and prices.

Reads a comparison; writes nothing. The page needs no network.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pipeline_definition.pages.document import Document, EmbeddedPicture, Section, Table, data_address
from pipeline_definition.pages.formats import DASH, count, figure
from pipeline_definition.pages.html import to_html
from pipeline_definition.prompting.comparison import Comparison, Standing, difference

HEADERS = (
    *("model", "CLIP score", "above the first (95 %)", "higher in", "median wait", "95 % within", "drawing"),
    *("per 1,000 images", "instance"),
)
NUMERIC = frozenset(range(1, 8))
NUMBERS = (
    "CLIP score: the cosine of picture and prompt. Waiting is what the caller saw, one request at a time; drawing is"
    " what the instance did, and what an image costs of its time at the on-demand price."
)


def render(comparison: Comparison, settings: Mapping[str, Any]) -> str:
    chosen = ", ".join(f"{name} {value}" for name, value in settings.items())
    rows = tuple(summary(standing, comparison.standings[0]) for standing in comparison.standings)
    lead, tables = f"{NUMBERS} {comparison.note}".strip(), (Table(HEADERS, rows, NUMERIC),)
    numbers = Section("numbers", "Numbers", lead, tables=tables, is_wide=True)
    document = Document(
        eyebrow=("models side by side", *filter(None, (chosen,))),
        title=" beside ".join(standing.contender.name for standing in comparison.standings),
        lead=_lead(comparison),
        sections=(numbers, *_pairs(comparison.standings)),
        notes=(f"Scored with the CLIP {comparison.clip}",) if comparison.clip else (),
    )
    return to_html(document)


def summary(standing: Standing, first: Standing) -> tuple[str, ...]:
    """Return a contender's row of the table, compared with the first one."""
    gap, wins = difference(first, standing) or (None, 0)
    usd, score, pictures = standing.usd_per_image, standing.clip_score, len(standing.shots)
    return (
        standing.contender.name,
        DASH if score is None else f"{score:.4f}",
        DASH if gap is None else f"{gap.mean:+.4f} ({gap.interval('+.4f') or 'too few prompts'})",
        DASH if gap is None else f"{count(wins)} of {count(pictures)}",
        f"{standing.latency_s(0.5):.2f} s",
        f"{standing.latency_s(0.95):.2f} s",
        f"{standing.render_s:.2f} s",
        DASH if usd is None else f"${figure(1000 * usd)}",
        standing.contender.instance_type or DASH,
    )


def _lead(comparison: Comparison) -> str:
    first, *others = comparison.standings
    asked = f"{count(len(first.shots))} pictures each, from the same prompts and seeds."
    verdicts = []
    for other in others:
        gap, _ = difference(first, other) or (None, 0)
        if gap is None:
            continue
        name = other.contender.name
        if gap.is_above_zero or (gap.high is not None and gap.high < 0):
            side = "more" if gap.is_above_zero else "less"
            verdicts.append(f"{name} shows {side} of the prompts than {first.contender.name}.")
        else:
            verdicts.append(f"By CLIP score, {name} and {first.contender.name} cannot be told apart on these.")
    return " ".join([asked, *verdicts])


def _pairs(standings: Sequence[Standing]) -> Iterator[Section]:
    """Yield each prompt and seed, as every contender drew it."""
    for number, shots in enumerate(zip(*(standing.shots for standing in standings), strict=True), 1):
        best = max((shot.clip_score for shot in shots if shot.clip_score is not None), default=None)
        pictures = []
        for name, shot in zip((standing.contender.name for standing in standings), shots, strict=True):
            score = "" if shot.clip_score is None else f"CLIP {shot.clip_score:.3f}, "
            source, alt = data_address(shot.picture.content, shot.picture.form), f"{name}: {shot.prompt}"
            is_best = best is not None and shot.clip_score == best
            pictures.append(EmbeddedPicture(source, alt, name, f"{score}{shot.answer.elapsed_s:.2f} s", is_best))
        yield Section(f"pair-{number}", shots[0].prompt, f"seed {shots[0].seed}", pictures=tuple(pictures))
