"""Turns scores into the metrics of metrics.json: each a value, its interval, and the number of pictures behind it.

Sanity rows are named after the metric: fid_untrained, clip_score_real. A comparison is a difference on the same prompts
and seeds, resampled together, and positive where the trained model is worse: fid_above_approved.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any, Final

import numpy as np

from params import layout
from params.layout import CLIP_FID, CLIP_SCORE, CLIP_SCORE_MARGIN, FID, FID_ABOVE_UNTRAINED, KID
from steps.evaluation.distances import fid, fid_replicates, kid, kid_replicates
from steps.evaluation.generation import APPROVED, PRETRAINED, TRAINED, UNTRAINED
from steps.evaluation.intervals import CONFIDENCE, Floats, interval, mean_replicates
from steps.evaluation.scoring import Scores

REAL: Final = "real"
# What the gate and the page call the differences, of FID and of CLIP score.
DIFFERENCES: Final = {
    UNTRAINED: (FID_ABOVE_UNTRAINED, layout.CLIP_SCORE_BELOW_UNTRAINED),
    PRETRAINED: (layout.FID_ABOVE_PRETRAINED, layout.CLIP_SCORE_BELOW_PRETRAINED),
    APPROVED: (layout.FID_ABOVE_APPROVED, layout.CLIP_SCORE_BELOW_APPROVED),
}
# The same object each time, by which _resampled_fid knows it.
_first: Final = lru_cache(maxsize=16)(Scores.first)

Entries = dict[str, dict[str, Any]]


def metrics(real: Scores, rows: Mapping[str, Scores], fid_features: str, seed: int) -> Entries:
    """Return every metric by its key.

    `rows` are the models' scores by name, `trained` among them. The row `real` is added: for a distance, one half of
    the real pictures against the other half; for the CLIP score, the real pictures with their own captions, and by how
    much that is more than with the captions of the others.
    """
    shuffled = np.random.default_rng(seed).permutation(len(real.cosines))
    first, second = np.split(shuffled, [len(shuffled) // 2])
    entries: Entries = {
        CLIP_SCORE + _suffix(REAL): _clip_score(real, seed),
        CLIP_SCORE_MARGIN: _mean(real.margins, seed),
    }
    for name, scores in {**rows, REAL: real.at(second)}.items():
        yardstick = real.at(first) if name == REAL else real
        if name != REAL:
            entries[CLIP_SCORE + _suffix(name)] = _clip_score(scores, seed)
        entries[FID + _suffix(name)] = _fid(yardstick, scores, fid_features, seed)
        entries[KID + _suffix(name)] = _kid(yardstick.fid_features, scores.fid_features, fid_features, seed)
        if fid_features != "clip":
            base, its = (replace(one, fid_features=one.clip_features) for one in (yardstick, scores))
            entries[CLIP_FID + _suffix(name)] = _fid(base, its, "clip", seed)
    return entries


def curve(real: Scores, rows: Mapping[float, Scores], fid_features: str, seed: int) -> list[dict[str, Any]]:
    """Return FID and CLIP score at each guidance scale, ascending, all on the same number of pictures.

    FID falls with the number of pictures (Chong and Forsyth 2020, arXiv:1911.07023), so points of different numbers
    would not make a curve.
    """
    pictures = min((len(scores.cosines) for scores in rows.values()), default=0)
    return [
        {
            "guidance_scale": scale,
            "pictures": pictures,
            FID: _fid(real, rows[scale].first(pictures), fid_features, seed),
            CLIP_SCORE: _clip_score(rows[scale].first(pictures), seed),
        }
        for scale in sorted(rows)
    ]


def comparisons(real: Scores, trained: Scores, others: Mapping[str, Scores], seed: int) -> Entries:
    """Return by how much the trained model is worse than each of the others, on the first prompts that both drew.

    Both are resampled together, so the difficulty of a prompt cancels out of the difference.
    """
    entries: Entries = {}
    for name, other in others.items():
        pictures = min(len(trained.cosines), len(other.cosines))
        mine, its = _first(trained, pictures), _first(other, pictures)
        fid_above, clip_score_below = DIFFERENCES[name]
        entries[fid_above] = _fid_difference(real, mine, its, seed)
        entries[clip_score_below] = _mean(its.cosines - mine.cosines, seed)
    return entries


def _clip_score(scores: Scores, seed: int) -> dict[str, Any]:
    return _entry(scores.clip_score, mean_replicates(scores.cosines, seed), pictures=len(scores.cosines))


def _fid(real: Scores, generated: Scores, features: str, seed: int) -> dict[str, Any]:
    counts = {"pictures": len(generated.cosines), "real_pictures": len(real.cosines)}
    value, replicates = _resampled_fid(real, generated, seed)
    entry = _entry(value, replicates, features=features, **counts)
    return {**entry, "low": max(entry["low"], 0.0)}


@lru_cache(maxsize=16)
def _resampled_fid(real: Scores, generated: Scores, seed: int) -> tuple[float, Floats]:
    """Return the FID and its resamples, which take minutes: the trained model is compared with several others."""
    both = real.fid_features, generated.fid_features
    return fid(*both), fid_replicates(*both, seed)


def _kid(real: Floats, generated: Floats, features: str, seed: int) -> dict[str, Any]:
    value, deviation = kid(real, generated, seed)
    facts = {"standard_deviation": deviation, "pictures": len(generated), "real_pictures": len(real)}
    return _entry(value, kid_replicates(real, generated, seed), features=features, **facts)


def _fid_difference(real: Scores, mine: Scores, its: Scores, seed: int) -> dict[str, Any]:
    pictures = len(mine.cosines)
    if mine is its:
        # Hundreds of resamples of a model against itself would all give 0.
        return _entry(0.0, np.zeros(1), pictures=pictures)
    # The same seed draws the same prompts for both.
    (my_fid, my_replicates), (its_fid, its_replicates) = (_resampled_fid(real, one, seed) for one in (mine, its))
    return _entry(my_fid - its_fid, my_replicates - its_replicates, pictures=pictures)


def _mean(values: Floats, seed: int) -> dict[str, Any]:
    return _entry(float(values.mean()), mean_replicates(values, seed), pictures=len(values))


def _suffix(name: str) -> str:
    return "" if name == TRAINED else f"_{name}"


def _entry(value: float, replicates: Floats, **facts: Any) -> dict[str, Any]:
    low, high = interval(value, replicates)
    return {"value": value, "low": low, "high": high, "confidence": CONFIDENCE, **facts}


def warnings(entries: Entries) -> list[str]:
    """Return the sentences without which no verdict on these metrics may be shown."""
    sentences = []
    margin = entries[CLIP_SCORE_MARGIN]
    if margin["low"] <= 0.0:
        sentences.append(
            "This judge cannot judge these pictures: with their own captions the real ones score "
            f"{margin['value']:+.3f} against the captions of others ({margin['low']:+.3f} to {margin['high']:+.3f}), "
            "which is no sure gain, so the CLIP score says nothing. In its place the gate asks for an FID below the "
            "untrained model's."
        )
    above = entries[FID_ABOVE_UNTRAINED]
    if FID + _suffix(UNTRAINED) in entries and above["high"] >= 0.0:
        sentences.append(
            "The trained model is not shown to be better than the untrained one: its FID is "
            f"{above['value']:+.3g} ({above['low']:+.3g} to {above['high']:+.3g}) above."
        )
    return sentences
