"""Each metric says its value, its interval and how many pictures it stands on."""

from dataclasses import replace

import numpy as np
import pytest

from params.layout import (
    CLIP_SCORE_BELOW_PRETRAINED,
    CLIP_SCORE_MARGIN,
    CLIP_SCORE_REAL,
    CLIP_SCORE_UNTRAINED,
    FID_ABOVE_APPROVED,
    FID_ABOVE_PRETRAINED,
    FID_REAL,
    FID_UNTRAINED,
    UNKNOWN_BOUND,
)
from steps.evaluation.distances import Yardstick
from steps.evaluation.intervals import Floats
from steps.evaluation.results import Entries, comparisons, curve, metrics, warnings
from steps.evaluation.scoring import Scores


def fid(real: Floats, generated: Floats) -> float:
    return Yardstick(real).distance(generated)


def scores(seed: int, count: int, offset: float = 0.0) -> Scores:
    numbers = np.random.default_rng(seed)
    cosines = numbers.normal(0.3 - offset / 10, 0.05, count)
    features = numbers.normal(offset, 1, (count, 4)), numbers.normal(offset, 1, (count, 6))
    return Scores(cosines, cosines - 0.1, *features)


REAL, TRAINED, UNTRAINED = scores(0, 80), scores(1, 60, 0.8), scores(2, 40, 2.0)


@pytest.fixture(scope="module")
def entries() -> Entries:
    return metrics(REAL, {"trained": TRAINED, "untrained": UNTRAINED}, "inception", seed=0)


def test_every_row_has_its_metrics(entries: Entries) -> None:
    assert set(entries) == {
        *("fid", FID_UNTRAINED, FID_REAL, "kid", "kid_untrained", "kid_real"),
        *("clip_fid", "clip_fid_untrained", "clip_fid_real"),
        *(f"{name}_infinity{row}" for name in ("fid", "clip_fid") for row in ("", "_untrained", "_real")),
        *("clip_score", CLIP_SCORE_UNTRAINED, CLIP_SCORE_REAL, CLIP_SCORE_MARGIN),
    }


def test_values_are_those_of_their_features(entries: Entries) -> None:
    assert entries["fid"]["value"] == fid(REAL.fid_features, TRAINED.fid_features)
    assert entries[FID_UNTRAINED]["value"] == fid(REAL.fid_features, UNTRAINED.fid_features)
    assert entries["clip_fid"]["value"] == fid(REAL.clip_features, TRAINED.clip_features)
    assert entries[CLIP_SCORE_REAL]["value"] == REAL.clip_score
    assert (entries["fid"]["features"], entries["clip_fid"]["features"]) == ("inception", "clip")


def test_sanity_rows_are_in_order(entries: Entries) -> None:
    assert entries[FID_REAL]["value"] < entries["fid"]["value"] < entries[FID_UNTRAINED]["value"]
    assert entries["kid_real"]["value"] < entries["kid"]["value"] < entries["kid_untrained"]["value"]
    assert entries[CLIP_SCORE_UNTRAINED]["value"] < entries["clip_score"]["value"] < entries[CLIP_SCORE_REAL]["value"]


def test_real_pictures_are_compared_by_halves(entries: Entries) -> None:
    assert (entries[FID_REAL]["pictures"], entries[FID_REAL]["real_pictures"]) == (40, 40)
    assert (entries["fid"]["pictures"], entries["fid"]["real_pictures"]) == (60, 80)


def test_intervals_hold_their_values(entries: Entries) -> None:
    for name, entry in entries.items():
        assert entry["low"] < entry["value"] < entry["high"]
        assert name.startswith("kid") or "infinity" in name or entry["low"] >= 0


def test_without_untrained_pictures_and_with_clip_features_those_rows_are_left_out() -> None:
    found = metrics(REAL, {"trained": TRAINED}, "clip", seed=0)
    fids = {"fid", FID_REAL, "fid_infinity", "fid_infinity_real"}
    assert set(found) == {*fids, "kid", "kid_real", "clip_score", CLIP_SCORE_REAL, CLIP_SCORE_MARGIN}


def test_a_curve_is_ascending_and_of_equal_numbers_of_pictures() -> None:
    points = curve(REAL, {8.0: UNTRAINED, 2.0: TRAINED}, "inception")
    assert [(point["guidance_scale"], point["pictures"]) for point in points] == [(2.0, 40), (8.0, 40)]
    assert points[0]["fid"]["value"] == fid(REAL.fid_features, TRAINED.fid_features[:40])
    assert points[1]["clip_score"]["value"] == UNTRAINED.clip_score
    assert curve(REAL, {}, "inception") == []


def test_a_comparison_is_the_difference_on_the_prompts_that_both_drew() -> None:
    found = comparisons(REAL, TRAINED, {"pretrained": UNTRAINED})
    above, below = found[FID_ABOVE_PRETRAINED], found[CLIP_SCORE_BELOW_PRETRAINED]
    yardstick = Yardstick(REAL.fid_features)
    mine, its = (yardstick.extrapolated(scores.fid_features[:40]) for scores in (TRAINED, UNTRAINED))
    assert (above["value"], above["pictures"]) == (pytest.approx(mine - its), 40)
    assert above["high"] < 0, "clearly better than the untrained model"
    assert below["value"] == pytest.approx(UNTRAINED.cosines.mean() - TRAINED.cosines[:40].mean())
    assert below["low"] < below["value"] < below["high"] < 0


def test_prompts_are_resampled_together_so_a_small_difference_shows() -> None:
    """The same pictures with a slight fault: each model's own interval is far wider than the difference."""
    others = TRAINED.margins, TRAINED.clip_features, 1.01 * TRAINED.fid_features
    faulty = Scores(TRAINED.cosines - 0.001, *others)
    found = comparisons(REAL, faulty, {"approved": TRAINED})[FID_ABOVE_APPROVED]
    alone = metrics(REAL, {"trained": TRAINED}, "clip", seed=0)["fid"]
    assert 0 < found["low"] < found["value"]
    assert found["high"] - found["low"] < (alone["high"] - alone["low"]) / 4


def test_a_model_is_exactly_as_good_as_itself() -> None:
    found = comparisons(REAL, TRAINED, {"approved": TRAINED})
    assert {(entry["low"], entry["value"], entry["high"]) for entry in found.values()} == {(0.0, 0.0, 0.0)}


def few(scores: Scores) -> Scores:
    """The first eight pictures: fewer than the nine that six features take."""
    return scores.first(8)


def test_every_fid_says_its_pictures_for_each_feature(entries: Entries) -> None:
    for name, entry in entries.items():
        if "fid" in name:
            width = 4 if name.startswith("clip") else 6
            assert (entry["dimensions"], entry["pictures_per_dimension"]) == (
                width,
                round(entry["pictures"] / width, 4),
            )


def test_with_too_few_pictures_there_is_no_fid_of_infinitely_many_and_kid_decides_or_nothing_does() -> None:
    assert "fid_infinity" not in metrics(REAL, {"trained": few(TRAINED)}, "clip", seed=0)
    found = comparisons(REAL, few(TRAINED), {"pretrained": few(UNTRAINED)})[FID_ABOVE_PRETRAINED]
    assert (found["judged_by"], found["enough_pictures"], found["pictures"]) == ("kid", 9, 8)
    assert found["low"] < found["value"] < found["high"] < 0, "clearly better, and said in KID"
    worse = comparisons(REAL, few(UNTRAINED), {"pretrained": few(TRAINED)})[FID_ABOVE_PRETRAINED]
    assert worse["value"] > 0
    assert worse["high"] == UNKNOWN_BOUND, "KID has other units than the gate's margin, so no margin is met"


def test_too_few_pictures_are_said_with_the_number_that_is_enough() -> None:
    entries = judged(REAL, few(TRAINED), few(UNTRAINED))
    (sentence,) = warnings(entries)
    assert sentence.startswith("Against the untrained model: 8 pictures are too few for an FID of 6 features, 9 are")
    assert "KID decides in its place: the trained model is better" in sentence
    (sentence,) = warnings(judged(REAL, few(UNTRAINED), few(TRAINED)))
    assert "too few pictures to tell, and no gate on this difference is passed" in sentence


def judged(real: Scores, trained: Scores, untrained: Scores | None) -> Entries:
    rows = {"trained": trained} | ({"untrained": untrained} if untrained else {})
    others = {"untrained": untrained or trained}
    return {**metrics(real, rows, "clip", seed=0), **comparisons(real, trained, others)}


def test_a_judge_that_tells_captions_apart_and_a_model_that_learned_need_no_warning() -> None:
    entries = judged(REAL, TRAINED, UNTRAINED)
    assert warnings(entries) == []
    assert entries[CLIP_SCORE_MARGIN]["value"] == pytest.approx(REAL.margins.mean())
    assert entries["fid_above_untrained"]["high"] < 0


@pytest.mark.parametrize("margin", [0.0, -0.05])
def test_a_judge_for_which_any_caption_will_do_says_that_it_cannot_judge(margin: float) -> None:
    blind = replace(REAL, margins=REAL.margins - REAL.margins.mean() + margin)
    (sentence,) = warnings(judged(blind, TRAINED, UNTRAINED))
    assert sentence.startswith("This judge cannot judge these pictures")
    assert "FID below the untrained model's" in sentence


def test_a_model_that_is_no_better_than_the_untrained_one_is_said_to_be_so() -> None:
    (sentence,) = warnings(judged(REAL, UNTRAINED, TRAINED))
    assert "not shown to be better than the untrained one" in sentence


def test_without_untrained_pictures_the_difference_is_zero_and_no_model_is_called_better() -> None:
    entries = judged(REAL, TRAINED, None)
    assert [entries["fid_above_untrained"][part] for part in ("low", "value", "high")] == [0.0, 0.0, 0.0]
    assert warnings(entries) == []
