"""Settings for a small set of somebody's own pictures, from their number and captions, for a laptop.

Reads captions and the configurations of a pretrained folder; writes nothing.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from params.families import INDEX_FILE, SCHEDULER, SCHEDULER_CONFIG_FILE, VAE, Family, FamilyError, family_of, predicted
from params.heldout import caption_hash, is_heldout
from pipeline_definition.errors import UsageError

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


def held_out(captions: Sequence[str]) -> tuple[float, float]:
    """Return encode.heldout_fraction, and the share of the pictures that it holds out: a tenth, or eight, at least.

    Captions are held out whole, so of few captions a plain tenth can be half of the set. UsageError: a side is empty.
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
    better = f"{held_out(captions)[0]:.4f} holds enough"
    return f"encode.heldout_fraction {fraction:g} holds out {held} of {len(captions)} pictures; {better}"


def small_set(count: int, captions: Sequence[str], side_px: int = SIDE_PX) -> dict[str, Any]:
    """Return what differs from the local parameter set. `count` pictures will be kept; 0: it is not known."""
    if 0 < count < MIN_PICTURES:
        raise UsageError(f"--data: {count} usable pictures; at least {MIN_PICTURES} are needed")
    fraction, share = held_out(captions) if captions else (0.1, 0.1)
    heldout = max(2, int(count * share)) if count else 64
    judged = min(heldout, 256)
    fewest, most = TRAINING_SAMPLES
    samples = min(max(count * PASSES, fewest), most) // 32 * 32 if count else most
    validation = {"validate_every_samples": samples // 4, "validation_samples": min(heldout, 128)}
    shown = {"grid_samples": min(judged, 32), "contact_sheet_samples": min(judged, 40)}
    return {
        "download": {"image_size_px": side_px, "min_yield": 0.5},
        "encode": {"resolution_px": side_px, "heldout_fraction": fraction},
        "tune": {"trials": 2, "training_samples": 640, "warmup_samples": 64},
        "train": {"training_samples": samples, **validation},
        "evaluate": {**dict.fromkeys(("samples", "untrained_samples", "comparison_samples"), judged), **shown},
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
