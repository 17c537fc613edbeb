"""Turns scores into the metrics of metrics.json: each a value, its interval, and the number of pictures behind it.

Sanity rows are named after the metric: fid_untrained, clip_score_real. A comparison is a difference on the same prompts
and seeds, positive where the trained model is worse: fid_above_approved. FIDs are compared as those of infinitely many
pictures; where there are too few to extrapolate, KID says whether the trained model is better, or nothing does.
"""

import itertools
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

import numpy as np

from params import layout
from params.layout import CLIP_FID, CLIP_SCORE, CLIP_SCORE_MARGIN, ENOUGH_PICTURES, FID, FID_ABOVE_UNTRAINED, KID
from steps.evaluation import distances
from steps.evaluation.distances import KernelYardstick, Measured, Yardstick, enough_pictures
from steps.evaluation.generation import APPROVED, PRETRAINED, TRAINED, UNTRAINED
from steps.evaluation.inception import SIDE_PX
from steps.evaluation.intervals import CONFIDENCE, Floats, interval
from steps.evaluation.resizing import CLIP_OWN
from steps.evaluation.scoring import Scores

REAL: Final = "real"
# What the gate and the page call the differences, of FID and of CLIP score.
DIFFERENCES: Final = {
    UNTRAINED: (FID_ABOVE_UNTRAINED, layout.CLIP_SCORE_BELOW_UNTRAINED),
    PRETRAINED: (layout.FID_ABOVE_PRETRAINED, layout.CLIP_SCORE_BELOW_PRETRAINED),
    APPROVED: (layout.FID_ABOVE_APPROVED, layout.CLIP_SCORE_BELOW_APPROVED),
}
# The two sets of features that a row's FIDs are of.
OF_FID: Final = "fid_features"
OF_CLIP: Final = "clip_features"

Entries = dict[str, dict[str, Any]]

# Each measurement of a row is made once, and asked for by the row's own metrics, the curve and the comparisons. Scores
# equal themselves alone, so the first pictures of a row have to be the same object each time.
_first: Final = lru_cache(maxsize=32)(Scores.first)


def _features(scores: Scores, name: str) -> Floats:
    return scores.further[name] if name in scores.further else np.asarray(getattr(scores, name))


@lru_cache(maxsize=8)
def _yardstick(real: Scores, features: str) -> Yardstick:
    return Yardstick(_features(real, features))


@lru_cache(maxsize=4)
def _kernel_yardstick(real: Scores) -> KernelYardstick:
    return KernelYardstick(real.fid_features, distances.cubic)


@lru_cache(maxsize=64)
def _fid(real: Scores, generated: Scores, features: str = OF_FID) -> Measured:
    return _yardstick(real, features).measure(_features(generated, features))


@lru_cache(maxsize=64)
def _fid_infinity(real: Scores, generated: Scores, features: str = OF_FID) -> Measured | None:
    """Return the FID of infinitely many pictures; None where there are too few to tell."""
    rows = _features(generated, features)
    if len(rows) < enough_pictures(rows.shape[1]):
        return None
    value = _yardstick(real, features).extrapolated(rows)
    return Measured(value, _fid(real, generated, features).parts)


@lru_cache(maxsize=64)
def _kid(real: Scores, generated: Scores) -> Measured:
    return _kernel_yardstick(real).measure(generated.fid_features)


def metrics(real: Scores, rows: Mapping[str, Scores], fid_features: str, seed: int) -> Entries:
    """Return every metric by its key.

    `rows` are the models' scores by name, `trained` among them. The row `real` is added: for a distance, one half of
    the real pictures against the other half; for the CLIP score, the real pictures with their own captions, and by how
    much that is more than with the captions of the others.
    """
    shuffled = np.random.default_rng(seed).permutation(len(real.cosines))
    first, second = (real.at(half) for half in np.split(shuffled, [len(shuffled) // 2]))
    entries: Entries = {
        CLIP_SCORE + _suffix(REAL): _clip_score(real),
        CLIP_SCORE_MARGIN: _entry(_mean(real.margins)),
    }
    for name, scores in {**rows, REAL: second}.items():
        base, suffix = first if name == REAL else real, _suffix(name)
        if name != REAL:
            entries[CLIP_SCORE + suffix] = _clip_score(scores)
        entries |= _fid_entries(FID, suffix, base, scores, OF_FID, about_fid(fid_features))
        entries[KID + suffix] = _entry(_kid(base, scores), features=fid_features, real_pictures=len(base.cosines))
        if fid_features != "clip":
            entries |= _fid_entries(CLIP_FID, suffix, base, scores, OF_CLIP, about_fid("clip"))
    return entries


def further_metrics(
    real: Scores, rows: Mapping[str, Scores], names: Sequence[str], facts: Mapping[str, Mapping[str, Any]]
) -> Entries:
    """Return the metrics that `evaluate.metrics` names, of every row; `facts` say of each where it comes from."""
    entries: Entries = {}
    for name, (row, scores) in itertools.product(names, rows.items()):
        suffix, about = _suffix(row), facts.get(name, {})
        if name == layout.PRECISION_RECALL:
            shares = distances.precision_recall(real.fid_features, scores.fid_features)
            for key, share in zip((layout.PRECISION, layout.RECALL), shares, strict=True):
                entry = _entry(share, **about, drawn_pictures=len(scores.cosines))
                entries[key + suffix] = {**entry, "low": max(entry["low"], 0.0), "high": min(entry["high"], 1.0)}
        elif name == layout.PICK_SCORE:
            entries[name + suffix] = _entry(_mean(scores.further[name]), **about)
        elif name == layout.CMMD:
            distance = KernelYardstick(real.further[name], distances.gaussian).measure(scores.further[name])
            entries[name + suffix] = _entry(distance, **about, real_pictures=len(real.cosines))
        else:
            entries |= _fid_entries(name, suffix, real, scores, name, about)
    return entries


def curve(real: Scores, rows: Mapping[float, Scores], fid_features: str) -> list[dict[str, Any]]:
    """Return FID and CLIP score at each scale, ascending, on equally many pictures: FID falls with their number."""
    pictures = min((len(scores.cosines) for scores in rows.values()), default=0)
    points: list[dict[str, Any]] = []
    for scale, scores in sorted(rows.items()):
        some = _first(scores, pictures)
        fids = _fid_entries(FID, "", real, some, OF_FID, about_fid(fid_features))
        points.append({"guidance_scale": scale, "pictures": pictures, **fids, CLIP_SCORE: _clip_score(some)})
    return points


def comparisons(real: Scores, trained: Scores, others: Mapping[str, Scores]) -> Entries:
    """Return by how much the trained model is worse than others, on prompts that both drew: difficulty cancels out."""
    entries: Entries = {}
    for name, other in others.items():
        pictures = min(len(trained.cosines), len(other.cosines))
        mine, its = _first(trained, pictures), _first(other, pictures)
        fid_above, clip_score_below = DIFFERENCES[name]
        entries[fid_above] = _fid_above(real, mine, its)
        entries[clip_score_below] = _entry(_mean(its.cosines - mine.cosines))
    return entries


def _fid_above(real: Scores, mine: Scores, its: Scores) -> dict[str, Any]:
    """Return by how much one FID is above another, of infinitely many pictures; or, in KID, whether it is below."""
    (my_fid, its_fid), dimensions = (_fid_infinity(real, one) for one in (mine, its)), mine.fid_features.shape[1]
    if mine is its:
        return _entry(Measured(0.0, np.zeros(len(mine.cosines))), dimensions=dimensions)
    if my_fid and its_fid:
        return _entry(my_fid - its_fid, dimensions=dimensions, **{layout.JUDGED_BY: layout.FID_INFINITY})
    facts = {layout.JUDGED_BY: KID, ENOUGH_PICTURES: enough_pictures(dimensions), "dimensions": dimensions}
    entry = _entry(_kid(real, mine) - _kid(real, its), **facts)
    # KID has other units than the gate's margin: it can say that the model is better, and nothing else.
    is_better = entry["high"] < 0.0
    return entry if is_better else {**entry, "low": -layout.UNKNOWN_BOUND, "high": layout.UNKNOWN_BOUND}


def _fid_entries(
    name: str, suffix: str, real: Scores, generated: Scores, which: str, about: Mapping[str, Any]
) -> Entries:
    """Return the FID of the pictures that there are, and of infinitely many where there are enough to tell."""
    pictures, dimensions = _features(generated, which).shape
    facts = {
        **about,
        "dimensions": dimensions,
        "pictures_per_dimension": round(pictures / dimensions, 4),
        "real_pictures": len(real.cosines),
    }
    plain = _entry(_fid(real, generated, which), **facts)
    entries = {name + suffix: {**plain, "low": max(plain["low"], 0.0)}}
    if infinite := _fid_infinity(real, generated, which):
        entries[f"{name}_infinity{suffix}"] = _entry(infinite, **facts)
    return entries


def about_fid(features: str) -> dict[str, Any]:
    resize = f"{SIDE_PX} px, torchmetrics" if features == "inception" else CLIP_OWN
    return {"features": features, "resize": resize}


def _clip_score(scores: Scores) -> dict[str, Any]:
    return _entry(Measured(scores.clip_score, scores.cosines))


def _mean(values: Floats) -> Measured:
    return Measured(float(values.mean()), values)


def _suffix(name: str) -> str:
    return "" if name == TRAINED else f"_{name}"


def _entry(measured: Measured, **facts: Any) -> dict[str, Any]:
    low, high = interval(measured.value, measured.parts)
    counts = {"confidence": CONFIDENCE, "pictures": len(measured.parts)}
    return {"value": measured.value, "low": low, "high": high, **counts, **facts}


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
    sentences += [sentence for name, (above, _) in DIFFERENCES.items() for sentence in _too_few(name, entries, above)]
    above = entries[FID_ABOVE_UNTRAINED]
    if FID + _suffix(UNTRAINED) in entries and ENOUGH_PICTURES not in above and above["high"] >= 0.0:
        sentences.append(
            "The trained model is not shown to be better than the untrained one: its FID is "
            f"{above['value']:+.3g} ({above['low']:+.3g} to {above['high']:+.3g}) above."
        )
    return sentences


def _too_few(name: str, entries: Entries, above: str) -> list[str]:
    """Return the sentence about an FID difference on too few pictures; none about any other."""
    entry = entries.get(above, {})
    if ENOUGH_PICTURES not in entry:
        return []
    outcome = (
        f"KID decides in its place: the trained model is better by {-entry['value']:.3g}."
        if entry["high"] < 0.0
        else "KID, which decides in its place, does not show that the trained model is better: too few pictures to "
        "tell, and no gate on this difference is passed."
    )
    asked = f"{entry['pictures']} pictures are too few for an FID of {entry['dimensions']} features"
    return [f"Against the {name} model: {asked}, {entry[ENOUGH_PICTURES]} are enough. {outcome}"]
