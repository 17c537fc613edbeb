from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shapes import captions
from shapes.captions import COLOURS, PLACES, SHAPES, SIZES, Caption

parts = st.builds(
    Caption,
    st.sampled_from(SIZES),
    st.sampled_from(COLOURS),
    st.sampled_from(SHAPES),
    st.sampled_from(PLACES),
    st.sampled_from(COLOURS),
)


def test_the_grid_holds_3920_captions_each_once() -> None:
    texts = [caption.text() for caption in captions.every()]
    assert len(texts) == 3920 == len(set(texts))


def test_the_grid_is_always_in_the_same_order() -> None:
    grid = captions.every()
    assert grid[0].text() == "a small red circle at the top on a yellow background"
    assert grid[-1].text() == "a large white ring in the centre on a black background"


@given(parts)
def test_a_caption_parses_back_to_its_parts_unless_shape_and_background_share_a_colour(caption: Caption) -> None:
    if caption.colour == caption.background:
        with pytest.raises(ValueError, match="not in the grid"):
            captions.parse(caption.text())
    else:
        assert captions.parse(caption.text()) == caption


@pytest.mark.parametrize(
    "text", ["", "a small red circle", "a small red circle at the top on a blue background.", "A small red circle"]
)
def test_a_text_outside_the_grid_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="one that is: 'a small red"):
        captions.parse(text)


def test_about_the_asked_fraction_is_held_out_and_a_larger_one_holds_the_smaller() -> None:
    texts = [caption.text() for caption in captions.every()]
    tenth = {text for text in texts if captions.is_heldout(text, 0.1)}
    fifth = {text for text in texts if captions.is_heldout(text, 0.2)}
    assert 0.08 < len(tenth) / len(texts) < 0.12
    assert tenth < fifth
    assert not any(captions.is_heldout(text, 0.0) for text in texts)
