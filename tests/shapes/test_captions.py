import pytest

from params import heldout
from shapes import captions


def test_the_grid_holds_3920_captions_each_once() -> None:
    texts = [caption.text() for caption in captions.every()]
    assert len(texts) == 3920 == len(set(texts))


def test_the_grid_is_always_in_the_same_order() -> None:
    grid = captions.every()
    assert grid[0].text() == "a small red circle at the top on a yellow background"
    assert grid[-1].text() == "a large white ring in the centre on a black background"


def test_a_caption_parses_back_to_its_parts() -> None:
    assert all(captions.parse(caption.text()) == caption for caption in captions.every()[::500])
    with pytest.raises(KeyError):
        captions.parse("a small red circle")


def test_about_a_tenth_is_held_out_by_the_hash_that_encode_takes() -> None:
    texts = [caption.text() for caption in captions.every()]
    tenth = {text for text in texts if captions.is_heldout(text)}
    assert 0.08 < len(tenth) / len(texts) < 0.12
    assert tenth == {text for text in texts if heldout.is_heldout(text, 0.1)}
