"""Each metric says its value, its interval and how many pictures it stands on."""

from __future__ import annotations

import numpy as np
import pytest

from params.layout import CLIP_SCORE_REAL, CLIP_SCORE_UNTRAINED, FID_REAL, FID_UNTRAINED
from steps.evaluation.distances import fid
from steps.evaluation.results import Entries, metrics
from steps.evaluation.scoring import Scores


def scores(seed: int, count: int, offset: float = 0.0) -> Scores:
    numbers = np.random.default_rng(seed)
    cosines = numbers.normal(0.3 - offset / 10, 0.05, count)
    return Scores(cosines.mean(), cosines, numbers.normal(offset, 1, (count, 4)), numbers.normal(offset, 1, (count, 6)))


REAL, TRAINED, UNTRAINED = scores(0, 80), scores(1, 60, 0.8), scores(2, 40, 2.0)


@pytest.fixture(scope="module")
def entries() -> Entries:
    return metrics(REAL, TRAINED, UNTRAINED, "inception", seed=0)


def test_every_row_has_its_metrics(entries: Entries) -> None:
    assert set(entries) == {
        *("fid", FID_UNTRAINED, FID_REAL, "kid", "kid_untrained", "clip_fid", "clip_fid_untrained"),
        *("clip_score", CLIP_SCORE_UNTRAINED, CLIP_SCORE_REAL),
    }


def test_values_are_those_of_their_features(entries: Entries) -> None:
    assert entries["fid"]["value"] == fid(REAL.fid_features, TRAINED.fid_features)
    assert entries[FID_UNTRAINED]["value"] == fid(REAL.fid_features, UNTRAINED.fid_features)
    assert entries["clip_fid"]["value"] == fid(REAL.clip_features, TRAINED.clip_features)
    assert entries[CLIP_SCORE_REAL]["value"] == REAL.clip_score
    assert (entries["fid"]["features"], entries["clip_fid"]["features"]) == ("inception", "clip")


def test_sanity_rows_are_in_order(entries: Entries) -> None:
    assert entries[FID_REAL]["value"] < entries["fid"]["value"] < entries[FID_UNTRAINED]["value"]
    assert entries["kid"]["value"] < entries["kid_untrained"]["value"]
    assert entries[CLIP_SCORE_UNTRAINED]["value"] < entries["clip_score"]["value"] < entries[CLIP_SCORE_REAL]["value"]


def test_real_pictures_are_compared_by_halves(entries: Entries) -> None:
    assert (entries[FID_REAL]["pictures"], entries[FID_REAL]["real_pictures"]) == (40, 40)
    assert (entries["fid"]["pictures"], entries["fid"]["real_pictures"]) == (60, 80)


def test_intervals_hold_their_values(entries: Entries) -> None:
    for name in set(entries) - {"kid", "kid_untrained"}:
        assert 0 <= entries[name]["low"] < entries[name]["value"] < entries[name]["high"]


def test_without_untrained_pictures_and_with_clip_features_those_rows_are_left_out() -> None:
    found = metrics(REAL, TRAINED, None, "clip", seed=0)
    assert set(found) == {"fid", FID_REAL, "kid", "clip_score", CLIP_SCORE_REAL}
