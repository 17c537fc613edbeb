"""The user's own data, before anything runs: check it, report on it, and write a parameter set sized for it.

Reads the data; writes <runs>/NAME.html, the page to look at, and <state>/sets/NAME.yaml, the parameter set of the run.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import yaml

from params.families import INDEX_FILE, SCHEDULER, SCHEDULER_CONFIG_FILE, VAE, Family, FamilyError, family_of, predicted
from params.files import write_text
from params.heldout import caption_hash, is_heldout
from params.s3 import SCHEME, join_uri
from params.settings import Settings, load_settings, parse_settings
from pipeline_definition.commands import options
from pipeline_definition.commands.options import say
from pipeline_definition.errors import UsageError

# In the packages, beside the local set's own.
PHOTO_MODELS: Final = "shapes/photo_models"
MIN_HELDOUT: Final = 8
"""What Evaluate needs."""
MIN_PICTURES: Final = 24
SIDE_PX: Final = 64
# Above it a VAE and a denoiser of full size are no work for a CPU.
MAX_SIDE_PX: Final = 256
# About 8 minutes of a run on two cores; more passes over a smaller set learn it by heart.
TRAINING_SAMPLES: Final = (9_600, 44_800)
PASSES: Final = 120
# A gate that asks for numbers alone: FID on some dozens of pictures decides nothing.
OPEN_GATE: Final = {"max_fid": 100_000.0, "min_clip_score": -1.0}

if TYPE_CHECKING:
    from pipeline_definition.artifacts.own_data import OwnData


@dataclass(frozen=True)
class OwnSet:
    """A run's parameter set, and what it has to upload."""

    params: Path
    settings: Settings
    files: Mapping[str, Path] = field(default_factory=dict)
    """To data.url_table, by name."""


def own_set(params: Path, data: str | None, pretrained: Path | None, state: Path, runs: Path, client: Any) -> OwnSet:
    """Return the set for `--data` and `--pretrained`, on the base of `params`.

    The local set's sizes are replaced by those of a small set; a user's own parameter set keeps its sizes.
    """
    from pipeline_definition.artifacts.own_data import own_data

    base = load_settings(params)
    is_own, bucket = base != load_settings(options.LOCAL_PARAMS), base.account.bucket
    changes: dict[str, Any] = {}
    side_px, name = base.encode.resolution_px, ""
    if pretrained:
        side_px = side_px if is_own else side_of(pretrained)
        changes = merged(_pretrained(pretrained.resolve(), bucket), fine_tuning(pretrained, keeps_rates=is_own))
        name = changes["data"]["pretrained_uri"].rsplit("/", 1)[-1]
    own: OwnData | None = None
    if data:
        judged_by = base.download if is_own else base.download.model_copy(update={"image_size_px": side_px})
        own = own_data(data, judged_by, client)
        name = own.name
        if not is_own and not pretrained:
            changes = _photo_models(bucket)
        show(own, runs / f"{name}.html")
        if is_own and (problem := too_few_held_out(own.sample.kept, base.encode.heldout_fraction)):
            raise UsageError(f"{params}: {problem}")
        sizes = {} if is_own else small_set(own.usable, own.sample.kept, side_px)
        changes = merged(merged(sizes, changes), _of_data(own, bucket))
    elif not is_own:
        sizes = {"download": {"image_size_px": side_px}, "encode": {"resolution_px": side_px}}
        changes = merged(sizes, changes)
    path = state / "sets" / f"{name}.yaml"
    values = merged(base.model_dump(mode="json", exclude_unset=True), changes)
    text = f"# {params} for {data or pretrained}, written by run-local.\n" + yaml.safe_dump(values, sort_keys=False)
    settings = parse_settings(text, str(path))
    write_text(path, text)
    train = settings.train
    say(f"set:   {path}: {settings.encode.resolution_px} px, {train.training_samples:,} samples to train on")
    return OwnSet(path, settings, own.files if own else {})


def show(own: OwnData, page: Path) -> None:
    """Say what a data set holds and what Download would leave out, and write the page of it."""
    from pipeline_definition.pages.html import to_html
    from pipeline_definition.report.data_page import data_document, scripts

    sample = own.sample
    kind = "rows" if own.source == "urls" else "pictures"
    looked_at = f", of {len(sample.captions):,} looked at" if len(sample.captions) < sample.rows else ""
    if sample.rows:
        writing = ", ".join(f"{name} {count:g}" for name, count in scripts(sample.kept).items())
        different = f"{len(sample.kept):,} with {len(set(sample.kept)):,} different captions"
        say(f"data:  {own.place}: {sample.rows:,} {kind}; usable: {different} ({writing}){looked_at}")
    if shorter := sorted(min(sides) for sides in sample.sides):
        say(f"sizes: shorter side {shorter[0]} to {shorter[-1]} px, half of them {shorter[len(shorter) // 2]} or more")
    if lost := [f"{cause.replace('_', ' ')} {count}" for cause, count in sorted(sample.left_out.items())]:
        say(f"left out: {', '.join(lost)}{looked_at}")
    if own.passed_over:
        say(f"not read: {', '.join(f'{count} {end}' for end, count in sorted(own.passed_over.items()))}")
    write_text(page, to_html(data_document(own.place, sample)))
    say(f"page:  {page}")


def _of_data(own: OwnData, bucket: str) -> dict[str, Any]:
    return {
        "data": {"name": own.name, "url_table": own.uri_in(bucket)},
        "download": {"source": own.source, **own.columns},
        # Its models are compared with each other, not with those of other data.
        "registry": {"group": f"own-{own.name}"},
    }


def _photo_models(bucket: str) -> dict[str, Any]:
    """Return where the shipped models for the user's own pictures go: the local set's models know only shapes."""
    uri = join_uri(f"{SCHEME}{bucket}", "pretrained", "photographs")
    return {
        "data": {"pretrained_uri": f"{uri}/pretrained", "evaluator_uri": f"{uri}/evaluator"},
        "local": {"pretrained_dir": PHOTO_MODELS + "/pretrained", "evaluator_dir": PHOTO_MODELS + "/evaluator"},
    }


def _pretrained(folder: Path, bucket: str) -> dict[str, Any]:
    """Return where a pretrained folder, and its evaluator if there is one, go."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    state = [(path.relative_to(folder).as_posix(), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    name = f"pretrained-{hashlib.sha256(repr(state).encode()).hexdigest()[:8]}"
    uri = join_uri(f"{SCHEME}{bucket}", "pretrained", name)
    data, local = {"pretrained_uri": uri}, {"pretrained_dir": str(folder)}
    if (folder / "evaluator").is_dir():
        data["evaluator_uri"] = join_uri(f"{SCHEME}{bucket}", "evaluator", name)
        local["evaluator_dir"] = str(folder / "evaluator")
    return {"data": data, "local": local}


def held_out(captions: Sequence[str]) -> tuple[float, float]:
    """Return encode.heldout_fraction, and the share of the pictures that it holds out: a tenth, or eight, at least.

    Captions are held out whole, with all pictures that have them: where few captions have many pictures each, a plain
    tenth would be none of them or half of the set. Raises UsageError where training or evaluation would get none.
    """
    hashed = sorted((caption_hash(caption), count) for caption, count in Counter(captions).items())
    wanted = max(2 * MIN_HELDOUT if len(captions) >= 64 else MIN_HELDOUT, len(captions) // 10)
    fewest, taken = min(4, len(hashed) // 4), 0
    for place, (last, count) in enumerate(hashed[:-1], 1):
        taken += count
        if taken >= wanted and place >= fewest:
            if len(captions) - taken < MIN_HELDOUT:
                break
            return (last + hashed[place][0]) / 2.0**65, taken / len(captions)
    raise UsageError(
        f"--data: {len(captions)} usable pictures have {len(hashed)} different captions; evaluation draws captions "
        "that training has not seen, so describe the pictures in more than one way"
    )


def too_few_held_out(captions: Sequence[str], fraction: float) -> str:
    """Return what is wrong with a set's own encode.heldout_fraction for these captions, and the fix; empty: nothing."""
    held = sum(is_heldout(caption, fraction) for caption in captions)
    if not captions or MIN_HELDOUT <= held <= len(captions) - MIN_HELDOUT:
        return ""
    better = held_out(captions)[0]
    return (
        f"encode.heldout_fraction {fraction:g} holds out {held} of {len(captions)} pictures; {better:.4f} holds enough"
    )


def small_set(count: int, captions: Sequence[str], side_px: int = SIDE_PX) -> dict[str, Any]:
    """Return what differs from the local parameter set. `count` pictures will be kept; 0: it is not known."""
    if 0 < count < MIN_PICTURES:
        raise UsageError(f"--data: {count} usable pictures; at least {MIN_PICTURES} are needed")
    fraction, share = held_out(captions) if captions else (0.1, 0.1)
    heldout = max(2, int(count * share)) if count else 64
    judged = min(heldout, 256)
    fewest, most = TRAINING_SAMPLES
    samples = min(max(count * PASSES, fewest), most) // 32 * 32 if count else most
    return {
        "download": {"image_size_px": side_px, "min_yield": 0.5},
        "encode": {"resolution_px": side_px, "heldout_fraction": fraction},
        "tune": {"trials": 2, "training_samples": 640, "warmup_samples": 64},
        "train": {
            "training_samples": samples,
            "validate_every_samples": samples // 4,
            "validation_samples": min(heldout, 128),
        },
        "evaluate": {
            "samples": judged,
            "untrained_samples": judged,
            "grid_samples": min(judged, 32),
            "comparison_samples": judged,
            "contact_sheet_samples": min(judged, 40),
        },
        "gate": OPEN_GATE,
        "endpoint": {"default_size_px": side_px, "max_size_px": side_px},
    }


def side_of(pretrained: Path) -> int:
    """Return the side at which a pretrained folder's denoiser was built to draw, within what a CPU can do."""
    denoiser, vae = _config(pretrained, _family(pretrained).denoiser), _config(pretrained, VAE)
    try:
        return min(int(denoiser["sample_size"]) << (len(vae["block_out_channels"]) - 1), MAX_SIDE_PX)
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"--pretrained: a config.json under {pretrained} lacks or garbles {error}") from None


def fine_tuning(pretrained: Path, keeps_rates: bool = False) -> dict[str, Any]:
    """Return the settings to start from a folder's own denoiser; none where it holds no weights of one."""
    if not any((pretrained / _family(pretrained).denoiser).glob("*.safetensors")):
        return {}
    kind = predicted(_config(pretrained, SCHEDULER, SCHEDULER_CONFIG_FILE))
    start: dict[str, Any] = {"train": {"initial_weights": "pretrained", "prediction_type": kind}}
    rates = {"low": 3e-6, "high": 3e-5, "scaling": "Logarithmic"}
    return start if keeps_rates else merged(start, {"train": {"learning_rate": 1e-5}, "tune": {"learning_rate": rates}})


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings with some changed, section by section."""
    values = dict(base)
    for key, value in changes.items():
        is_section = isinstance(value, Mapping) and isinstance(values.get(key), Mapping)
        values[key] = merged(values[key], value) if is_section else value
    return values


def _family(pretrained: Path) -> Family:
    try:
        return family_of(_config(pretrained, "", INDEX_FILE) if (pretrained / INDEX_FILE).is_file() else None)
    except FamilyError as error:
        raise UsageError(f"--pretrained: {pretrained}: {error}") from None


def _config(folder: Path, part: str, name: str = "config.json") -> dict[str, Any]:
    path = folder / part / name
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"--pretrained: {path} cannot be read: {error}; `pretrained fetch` makes a folder") from None
    return config if isinstance(config, dict) else {}
