"""What the model learned from: the download's yield, row by row, and the latents' checks."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from params.layout import HELDOUT_SPLIT, TRAIN_SPLIT
from pipeline_definition.pages import charts
from pipeline_definition.pages.document import Chart, EmbeddedPicture, Fact, Section, Table, data_address, known_facts
from pipeline_definition.pages.formats import count, figure, number, percent, plain, size
from pipeline_definition.report import LABELS
from pipeline_definition.report.run import Run

# Latents drawn from the moments and scaled once have a deviation near 1: Rombach et al. 2022, arXiv:2112.10752.
SCALED_STD_RANGE = (0.5, 2.0)
DIGEST_CHARACTERS = 12
MAX_CAPTION_CHARACTERS = 160


def download_section(run: Run) -> Section:
    manifest = run.artifacts.shards_manifest or {}
    ledger: Mapping[str, Any] = manifest.get("ledger") or {}
    rows, kept = number(ledger.get("rows")), number(ledger.get("kept"))
    lead = ""
    if rows and kept is not None:
        lead = f"{count(kept)} of the table’s {count(rows)} rows became samples: {percent(kept / rows)}."
        sample_yield = number(ledger.get("sample_yield"))
        if sample_yield is not None and fates(ledger, "filtered"):
            lead += f" Of those that the filters left: {percent(sample_yield)}."
    shares = (
        *share_chart("causes", "Rows that failed, by cause", fates(ledger, "failed"), rows),
        *share_chart("filters", "Rows left out, by filter", fates(ledger, "filtered"), rows),
    )
    facts = [*known_facts(ledger, {"rows": "rows of the table", "tried": "fetched", "kept": "kept"}, count)]
    written, shards = number(ledger.get("bytes")), manifest.get("shards")
    if written is not None:
        facts.append(Fact("written", size(written), f"{_shards(shards)}, verified" if isinstance(shards, list) else ""))
    mode = plain(manifest.get("resize_mode")).replace("_", " ")
    facts += known_facts(manifest, {"image_size_px": "picture side"}, "{:,.0f} px".format, mode)
    return Section("download", "What was downloaded", lead, tuple(facts), shares)


def went_in_section(run: Run) -> Section:
    shown = run.artifacts.went_in
    pictures = tuple(embedded(path.read_bytes(), caption, written=written) for path, caption, written in shown)
    lead = "Some of the stored pictures, with their captions; `sd-pipeline data show` has more."
    return Section("went-in", "What went in", lead, pictures=pictures, is_wide=True)


def embedded(jpeg: bytes, caption: str, title: str = "", written: str = "") -> EmbeddedPicture:
    """Return a small picture for a page, with the beginnings of its caption and of the one that Recaption wrote."""
    text = _beginning(caption) or "(no caption)"
    return EmbeddedPicture(data_address(jpeg, "jpeg"), alt=text, title=title, caption=text, second=_beginning(written))


def _beginning(caption: str) -> str:
    text = caption.strip()
    return text if len(text) <= MAX_CAPTION_CHARACTERS else text[: MAX_CAPTION_CHARACTERS - 1] + "…"


def fates(ledger: Mapping[str, Any], kind: str) -> dict[str, float]:
    """Return how many rows `failed` for each cause, or were `filtered` by each filter, most first."""
    counted = ledger.get(kind)
    causes = {str(cause): number(rows) for cause, rows in counted.items()} if isinstance(counted, dict) else {}
    known = {cause.replace("_", " "): rows for cause, rows in causes.items() if rows}
    return dict(sorted(known.items(), key=lambda item: (-item[1], item[0])))


def latents_section(run: Run) -> Section:
    manifest = run.artifacts.latents_manifest or {}
    counts = manifest.get("counts") or {}
    train, heldout = number(counts.get(TRAIN_SPLIT)), number(counts.get(HELDOUT_SPLIT))
    known = ((label, str(manifest.get(key) or "")) for key, label in LABELS["latents_digests"].items())
    digests = tuple((label, digest[:DIGEST_CHARACTERS]) for label, digest in known if digest)
    lead = ""
    if train is not None:
        lead = f"{count(train)} samples to train on" + (f", {count(heldout)} held out." if heldout is not None else ".")
    title = f"What was encoded{f' for {run.phase}' if run.phase else ''}"
    tables = (
        Table(("width × height, px", "for training", "held out"), tuple(bucket_rows(manifest)), frozenset({1, 2})),
        Table(("made from", "digest"), digests, summary="Digests of what made them"),
    )
    return Section(f"latents{run.phase}", title, lead, tuple(_latents_facts(manifest)), tables=tables)


def bucket_rows(manifest: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return width x height, training samples and held-out ones of every shape; nothing where all are squares."""
    buckets = manifest.get("buckets")
    rows = []
    for bucket in buckets if isinstance(buckets, list) else ():
        sides, counts = (bucket.get("size_px"), bucket.get("counts")) if isinstance(bucket, dict) else (None, None)
        if isinstance(sides, list) and len(sides) == 2 and isinstance(counts, dict):
            samples = (number(counts.get(split)) or 0 for split in (TRAIN_SPLIT, HELDOUT_SPLIT))
            rows.append((f"{plain(sides[1])} × {plain(sides[0])}", *map(count, samples)))
    return rows


def share_chart(name: str, title: str, counts: Mapping[str, float], whole: float | None) -> Iterator[Chart]:
    """Yield a chart of counts, each with its share of the whole where that is known; none where nothing was counted."""
    if not counts:
        return
    words = {label: count(value) + (f" ({percent(value / whole)})" if whole else "") for label, value in counts.items()}
    description = ", ".join(f"{label}: {text}" for label, text in words.items())
    rows = [(label, value, words[label]) for label, value in counts.items()]
    yield Chart(title, charts.bars(name, description, rows))


def _latents_facts(manifest: Mapping[str, Any]) -> Iterator[Fact]:
    std, factor = number(manifest.get("latents_std")), number(manifest.get("scaling_factor"))
    if std is not None and factor is not None:
        low, high = SCALED_STD_RANGE
        good = low <= std * factor <= high
        yield Fact("deviation once scaled", figure(std * factor), f"{'✓ near' if good else '✕ should be near'} 1")
    mean = number(manifest.get("latents_mean"))
    if mean is not None and factor is not None:
        yield Fact("mean once scaled", figure(mean * factor), "near 0")
    psnr = {"decoded_psnr_db": "decoded against the pictures"}
    yield from known_facts(manifest, psnr, lambda value: f"{figure(value)} dB", "PSNR of a few")
    shape = manifest.get("latent_shape")
    if isinstance(shape, (list, tuple)):
        yield Fact("latent", " × ".join(plain(length) for length in shape), "channels, height, width")
    yield from known_facts(manifest, {"resolution_px": "picture side"}, "{:,.0f} px".format)
    shards = manifest.get("shards")
    if isinstance(shards, list):
        written = sum(number(shard.get("bytes")) or 0 for shard in shards if isinstance(shard, dict))
        yield Fact("on disk", size(written), _shards(shards))


def _shards(shards: Sequence[object]) -> str:
    return f"{count(len(shards))} shard{'s' if len(shards) != 1 else ''}"
