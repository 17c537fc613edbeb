import itertools
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor
from transformers import CLIPModel, CLIPTokenizer

from shapes import captions, picture_set, tokenizer, train_clip
from shapes.captions import Caption


@pytest.fixture(scope="module")
def small() -> CLIPTokenizer:
    return tokenizer.train([caption.text() for caption in captions.every()])


def test_a_batch_is_made_of_distinct_captions_many_of_which_differ_in_one_word() -> None:
    grid = captions.every()
    (rows,) = train_clip._batches(grid, 1, 0)
    batch = [grid[row] for row in rows.tolist()]
    assert len(set(batch)) == train_clip.BATCH_SIZE
    close = sum(sum(a != b for a, b in zip(*pair, strict=True)) == 1 for pair in itertools.combinations(batch, 2))
    assert close > train_clip.BATCH_SIZE


def test_a_batch_holds_no_caption_that_was_not_given() -> None:
    grid = [caption for caption in captions.every() if caption.shape == "ring"]
    (rows,) = train_clip._batches(grid, 1, 0)
    assert rows.max() < len(grid)


def test_training_lowers_the_loss_and_repeats_itself(small: CLIPTokenizer) -> None:
    chosen = captions.every()[::8]
    pixels = picture_set.load(chosen)
    first, second = (train_clip.train(small, chosen, pixels, steps=12, seed=1) for _ in range(2))
    untrained = train_clip.build(small)
    assert _loss(first, small, chosen[:64], pixels[:64]) < _loss(untrained, small, chosen[:64], pixels[:64]) - 0.2
    states = first.state_dict(), second.state_dict()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def _loss(model: CLIPModel, small: CLIPTokenizer, chosen: Sequence[Caption], pixels: Tensor) -> float:
    tokens = train_clip.tokenize(small, [caption.text() for caption in chosen])
    with torch.no_grad():
        return float(train_clip.loss_of(model, tokens, picture_set.to_models(pixels)))


def test_shifted_pictures_keep_their_size_and_their_background() -> None:
    torch.manual_seed(0)
    batch = torch.full((2, 3, 64, 64), 0.5)
    batch[:, :, 20:40, 20:40] = -0.5
    shifted = train_clip.augment(batch)
    assert shifted.shape == batch.shape
    assert (shifted - 0.5).abs().median() < 4 * train_clip.NOISE
    assert float((shifted < 0).float().mean()) == pytest.approx(float((batch < 0).float().mean()), abs=1e-3)
