"""Scores to the metrics of metrics.json: each a value, its interval, and how many pictures it stands on."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from params.layout import CLIP_FID, CLIP_SCORE, FID, KID
from steps.evaluation.distances import fid, fid_replicates, kid
from steps.evaluation.intervals import CONFIDENCE, Floats, interval, mean_replicates
from steps.evaluation.scoring import Scores

# Sanity rows are named after the metric: fid_untrained, clip_score_real.
UNTRAINED: Final = "_untrained"
REAL: Final = "_real"

Entries = dict[str, dict[str, Any]]


def metrics(real: Scores, trained: Scores, untrained: Scores | None, fid_features: str, seed: int) -> Entries:
    """Return every metric by its key.

    The sanity rows: `_untrained`, the same model with fresh weights; `_real`, for a distance one half of the real
    pictures against the other half, for the CLIP score the real pictures with their own captions.
    """
    rows = {"": trained} | ({UNTRAINED: untrained} if untrained else {})
    entries: Entries = {}
    for suffix, scores in {**rows, REAL: real}.items():
        entries[CLIP_SCORE + suffix] = clip_score(scores, seed)
    first, second = _halves(len(real.cosines), seed)
    features = {suffix: scores.fid_features for suffix, scores in rows.items()}
    entries |= _distances(real.fid_features, features, FID, fid_features, seed)
    entries |= _distances(real.fid_features[first], {REAL: real.fid_features[second]}, FID, fid_features, seed)
    for suffix, generated in features.items():
        entries[KID + suffix] = kid_entry(real.fid_features, generated, fid_features, seed)
    if fid_features != "clip":
        clip_features = {suffix: scores.clip_features for suffix, scores in rows.items()}
        entries |= _distances(real.clip_features, clip_features, CLIP_FID, "clip", seed)
    return entries


def clip_score(scores: Scores, seed: int) -> dict[str, Any]:
    """Return the CLIP score, a cosine in -1..1, with its interval over the pictures."""
    low, high = interval(scores.clip_score, mean_replicates(scores.cosines, seed))
    return {**_interval(scores.clip_score, low, high), "pictures": len(scores.cosines)}


def fid_entry(real: Floats, generated: Floats, features: str, seed: int) -> dict[str, Any]:
    """Return the FID of generated to real features, (N, D) each, with its interval over the generated pictures."""
    value = fid(real, generated)
    low, high = interval(value, fid_replicates(real, generated, seed))
    counts = {"pictures": len(generated), "real_pictures": len(real)}
    return {**_interval(value, max(low, 0.0), high), "features": features, **counts}


def kid_entry(real: Floats, generated: Floats, features: str, seed: int) -> dict[str, Any]:
    """Return the KID of generated to real features, (N, D) each, with its deviation over subsets."""
    value, deviation = kid(real, generated, seed)
    counts = {"pictures": len(generated), "real_pictures": len(real)}
    return {"value": value, "standard_deviation": deviation, "features": features, **counts}


def _distances(real: Floats, rows: dict[str, Floats], name: str, features: str, seed: int) -> Entries:
    return {name + suffix: fid_entry(real, generated, features, seed) for suffix, generated in rows.items()}


def _interval(value: float, low: float, high: float) -> dict[str, Any]:
    return {"value": value, "low": low, "high": high, "confidence": CONFIDENCE}


def _halves(count: int, seed: int) -> tuple[Any, Any]:
    rows = np.random.default_rng(seed).permutation(count)
    return rows[: count // 2], rows[count // 2 :]
