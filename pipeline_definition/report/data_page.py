"""The page of a data set: what went in, to be looked at before it is paid for.

Reads a sample of shards, latents or a folder; writes one HTML file.

    sd-pipeline data show s3://BUCKET/shards/NAME
"""

import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

import numpy as np

from params.layout import HELDOUT_SPLIT, TRAIN_SPLIT
from pipeline_definition.artifacts.data_sample import DataSample, ShownPicture
from pipeline_definition.pages.document import Chart, Document, EmbeddedPicture, Fact, Section, Table
from pipeline_definition.pages.formats import count, number, percent
from pipeline_definition.report import LABELS
from pipeline_definition.report.data import MAX_CAPTION_CHARACTERS, embedded, fates, share_chart

# Edges of what is counted together.
SIDES_PX = (64, 128, 256, 512, 768, 1024, 2048)
RATIOS = (1.05, 1.34, 1.51, 1.8, 2.4, 3.01)
SPANS = 8
CHARACTERS = (1, 10, 30, 75, 150, 300, 1000)


def data_document(place: str, sample: DataSample) -> Document:
    """Return the page of a sample; every text in it comes from outside and is escaped by the template."""
    look_for = "pictures that lie on their side, washed-out colours, and captions that are not theirs"
    evenly, pictures = f"Evenly from the whole set. Look for {look_for}.", tuple(map(_embedded, sample.pictures))
    told = ("counts", "is left out as a copy")
    copies = tuple(_embedded(*one) for pair in sample.pairs for one in zip(pair, told, strict=True))
    beside = "Side by side: the picture that counts, and the one that was taken for a copy of it."
    examples = tuple(
        (cause.replace("_", " ")[:60], address[:200], caption[:MAX_CAPTION_CHARACTERS])
        for cause, some in sample.examples.items()
        for address, caption in some
    )
    tables = (Table(("cause", "address", "caption"), examples, wraps=True),)
    sections = (
        _overview(sample),
        Section("pictures", "Pictures", evenly, pictures=pictures, is_wide=True),
        _measures(sample),
        Section("copies", "Copies", beside, pictures=copies, is_wide=True),
        Section("causes", "Examples of what is left out", tables=tables, is_wide=True),
    )
    notes = ("Pictures are shown small; captions are cut after 160 characters.",)
    return Document(("data set", place), "What went in", _lead(sample), sections, notes)


def _lead(sample: DataSample) -> str:
    ledger = sample.manifest.get("ledger") or {}
    rows, kept = number(ledger.get("rows")), number(ledger.get("kept"))
    if rows and kept is not None:
        return f"{count(kept)} of {count(rows)} rows became samples: {percent(kept / rows)}."
    counts = sample.manifest.get("counts") or {}
    train = number(counts.get(TRAIN_SPLIT))
    if train is not None:
        return f"{count(train)} latents to train on, {count(number(counts.get(HELDOUT_SPLIT)) or 0)} held out."
    looked_at = len(sample.captions)
    judged = f" of the {count(looked_at)} that were looked at" if looked_at < sample.rows else ""
    lost = count(sum(sample.left_out.values()))
    return f"{count(sample.rows)} pictures. Download would leave out at least {lost}{judged}."


def _overview(sample: DataSample) -> Section:
    manifest, ledger = sample.manifest, sample.manifest.get("ledger") or {}
    of_latents = ("resolution_px", "decoded_psnr_db", "latents_std", "dropped_heldout_samples")
    named = {**ledger, **{key: manifest.get(key) for key in ("image_size_px", *of_latents)}}
    facts = [
        Fact(label, f"{value:,.4g}") for key, label in LABELS["data_set"].items() if (value := number(named.get(key)))
    ]
    if sample.least_px:
        facts.append(Fact("shorter side needed, px", count(sample.least_px), "by the parameter set"))
    empty = sum(not caption.strip() for caption in sample.captions)
    if empty and "uncaptioned" not in ledger:
        facts.append(Fact("without a caption", count(empty), f"of {count(len(sample.captions))} looked at"))
    lost = {**fates(ledger, "failed"), **fates(ledger, "filtered"), **fates(ledger, "set_aside")}
    would_be = {cause.replace("_", " "): float(rows) for cause, rows in sample.left_out.items()}
    drawn = (
        *_bars("Left out", lost, number(ledger.get("rows"))),
        *_bars("Would be left out", would_be, len(sample.captions)),
    )
    return Section("overview", "In figures", facts=tuple(facts), charts=drawn)


def _embedded(picture: ShownPicture, title: str = "") -> EmbeddedPicture:
    return embedded(picture.jpeg, picture.caption, title or picture.name[-40:], picture.written)


def _measures(sample: DataSample) -> Section:
    known = [(width, height) for width, height in sample.sides if width > 0 and height > 0]
    ratios = [max(sides) / min(sides) for sides in known]
    counted = {
        "Shorter side of the originals, px": _counted([min(sides) for sides in known], SIDES_PX),
        "Longer side to shorter side": _counted(ratios, RATIOS),
        "Characters of a caption": _counted([len(text.strip()) for text in sample.captions], CHARACTERS),
        "Writing of the captions": scripts(sample.captions),
        **{name: _spans(values) for name, values in sample.scores.items()},
    }
    charts = tuple(chart for title, values in counted.items() for chart in _bars(title, values))
    lead = f"Of {count(len(sample.captions))} samples that were looked at."
    return Section("measures", "Sizes and captions", lead, charts=charts)


def _counted(values: Sequence[float], edges: Sequence[float]) -> dict[str, float]:
    """Return how many values lie below the first edge, between two, and from the last one on."""
    if not values:
        return {}
    names = [f"below {edges[0]:g}", *(f"{low:g} to {high:g}" for low, high in pairwise(edges))]
    names.append(f"{edges[-1]:g} and more")
    places = Counter(sum(value >= edge for edge in edges) for value in values)
    return {names[place]: places[place] for place in range(min(places), max(places) + 1)}


def _spans(values: Sequence[float]) -> dict[str, float]:
    """Return how many values lie in each of eight equal spans from the least to the largest."""
    if min(values) == max(values):
        return {f"{values[0]:.3g}": len(values)}
    counts, edges = np.histogram(values, SPANS)
    return {f"{low:.3g} to {high:.3g}": int(own) for own, (low, high) in zip(counts, pairwise(edges), strict=True)}


def scripts(captions: Sequence[str]) -> dict[str, float]:
    """Return how many captions begin in each script, as the names of their first letters have it: LATIN, CJK, ..."""
    scripts: Counter[str] = Counter()
    for caption in captions:
        letter = next((character for character in caption[:200] if character.isalpha()), "")
        scripts[unicodedata.name(letter, "?").split(" ")[0].lower() if letter else "no letters"] += 1
    return dict(scripts.most_common(8))


def _bars(title: str, values: Mapping[str, float], whole: float | None = None) -> Iterator[Chart]:
    """Yield a chart of counts, as shares of the whole, or of their sum."""
    return share_chart(title.lower().replace(" ", "-"), title, values, whole or sum(values.values()) or 1)
