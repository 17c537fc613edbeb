"""Prompt following of planted pictures: the shares are those that were planted, with the exact interval."""

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import beta

from params.layout import PROMPT_FOLLOWING
from params.programs import EvaluateArguments
from shapes import captions
from steps.errors import StepError
from steps.evaluation.captions import Prompt
from steps.evaluation.following import PromptFollowing
from steps.evaluation.generation import ModelSource, PictureSet, Work
from steps.evaluation.generator import SamplingSettings
from steps.evaluation.reference import Pictures
from tests.shapes.stored import as_stored

_, HELDOUT = captions.divided(captions.every())
ARGUMENTS = EvaluateArguments(following="shapes")


class RealPictures:
    """Held-out pictures of the local set, as Reference gives them."""

    def __init__(self) -> None:
        self.captions = [one.text() for one in HELDOUT]

    def __len__(self) -> int:
        return len(HELDOUT)

    def read(self, rows: range) -> Pictures:
        return np.stack([as_stored(HELDOUT[row]) for row in rows])


def judged(texts: list[str]) -> PromptFollowing:
    prompts = [Prompt(index, text, index, None) for index, text in enumerate(texts)]
    return PromptFollowing(ARGUMENTS, Path("none"), RealPictures(), prompts, None)  # type: ignore[arg-type]


def test_the_shares_are_those_that_were_planted(tmp_path: Path) -> None:
    asked = HELDOUT[:50]
    drawn = [
        *asked[:30],
        *(
            one._replace(place="in the centre" if one.place != "in the centre" else "at the top")
            for one in asked[30:42]
        ),
        *(one._replace(shape="star" if one.shape != "star" else "heart") for one in asked[42:]),
    ]
    prompts = [Prompt(index, one.text(), index, None) for index, one in enumerate(asked)]
    drawing = SamplingSettings(1.0, 1, "ddim", 64, 64)
    row = PictureSet("trained", ModelSource(tmp_path, ""), drawing, prompts, tmp_path / "drawn", {}, "")
    row.store().write(row.indices, np.stack([as_stored(one) for one in drawn]))
    following, work = judged([one.text() for one in asked]), Work([row], ARGUMENTS)
    assert following.planned(work, tmp_path) is work
    entries = following.entries(work)
    values = {key.removeprefix(f"{PROMPT_FOLLOWING}_"): entry["value"] for key, entry in entries.items()}
    assert values == {
        PROMPT_FOLLOWING: 0.6,
        **{"object": 0.84, "size": 0.84, "colour": 0.84, "binding": 0.84, "place": 0.6},
        "real": 1.0,
    }
    exact = (beta.ppf(0.025, 30, 21), beta.ppf(0.975, 31, 20))
    assert (entries[PROMPT_FOLLOWING]["low"], entries[PROMPT_FOLLOWING]["high"]) == pytest.approx(exact)
    assert entries[PROMPT_FOLLOWING]["pictures"] == 50


def test_captions_that_the_pixels_cannot_judge_are_refused_before_anything_is_drawn() -> None:
    with pytest.raises(StepError, match="pictures of the local set alone"):
        judged(["a photo of a dog"])
