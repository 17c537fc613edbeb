"""The reader of the local set against its renderer: what was drawn right is right, and each fault is a fault."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from shapes import captions, pictures
from shapes.captions import Caption
from steps.errors import StepError
from steps.evaluation.copies import redraw
from steps.evaluation.reference import Pictures
from steps.evaluation.shapes_reader import ShapesReader, parse
from steps.model.pretrained import load_vae
from tests.shapes.stored import as_stored

GRID = captions.every()
SEEN, HELDOUT = captions.divided(GRID)
KINDS = {"object", "size", "colour", "place", "binding"}
PRETRAINED = Path("shapes/models/pretrained")


def stored(of: Sequence[Caption]) -> Pictures:
    return np.stack([as_stored(caption) for caption in of])


def texts(of: Sequence[Caption]) -> list[str]:
    return [caption.text() for caption in of]


@pytest.fixture(name="reader", scope="module")
def reader_fixture() -> ShapesReader:
    real = HELDOUT[:400]
    return ShapesReader([(stored(real), texts(real))], texts(GRID))


def test_every_caption_says_what_the_world_means() -> None:
    assert [tuple(parse(caption.text()).values()) for caption in GRID] == [tuple(caption) for caption in GRID]


def test_every_picture_that_the_world_draws_is_read_to_the_letter(reader: ShapesReader) -> None:
    wrong = [one for one in SEEN[::3] if reader.read(as_stored(one)) != [parse(one.text())]]
    assert not wrong


def test_pictures_that_went_through_the_model_s_own_vae_are_read_as_well(reader: ShapesReader) -> None:
    drawn = redraw(load_vae(PRETRAINED, torch.float32), stored(SEEN[::50]))
    assert all(all(reader.verdict(*one).values()) for one in zip(drawn, texts(SEEN[::50]), strict=True))


def test_noise_as_a_model_leaves_it_changes_no_verdict(reader: ShapesReader) -> None:
    draws = np.random.default_rng(0)
    for caption in SEEN[::50]:
        noisy = as_stored(caption) + draws.normal(0, 15, (64, 64, 3))
        assert all(reader.verdict(noisy.clip(0, 255).astype(np.uint8), caption.text()).values())


@pytest.mark.parametrize(
    ("word", "wrong"),
    [
        ("shape", KINDS),
        ("size", {"size"}),
        ("colour", {"colour", "binding"}),
        ("place", {"place"}),
        ("background", {"binding"}),
    ],
)
def test_a_wrong_word_is_wrong_in_its_kinds_alone(reader: ShapesReader, word: str, wrong: set[str]) -> None:
    others = {"shape": captions.SHAPES, "size": captions.SIZES, "place": captions.PLACES}
    for asked in SEEN[::97]:
        for other in others.get(word, captions.COLOURS):
            drawn = asked._replace(**{word: other})
            if other != getattr(asked, word) and drawn.colour != drawn.background:
                verdict = reader.verdict(as_stored(drawn), asked.text())
                assert {kind for kind, is_right in verdict.items() if not is_right} == wrong


def test_swapped_colours_are_no_binding(reader: ShapesReader) -> None:
    for asked in SEEN[::97]:
        drawn = asked._replace(colour=asked.background, background=asked.colour)
        verdict = reader.verdict(as_stored(drawn), asked.text())
        assert verdict["object"] and verdict["place"] and not verdict["colour"] and not verdict["binding"]


def test_nothing_a_shape_without_a_name_and_two_things_are_not_what_was_asked(reader: ShapesReader) -> None:
    asked = Caption("small", "red", "circle", "on the left", "white")
    empty = np.full((64, 64, 3), pictures.RGB["white"], np.uint8)
    moon = as_stored(asked._replace(shape=captions.NEW_SHAPE))
    for drawn in (empty, moon, both(asked, asked._replace(shape="star", place="on the right"))):
        assert not any(reader.verdict(drawn, asked.text()).values())
    assert reader.read(empty) == []
    assert [one["shape"] for one in reader.read(moon)] == [""]


def test_a_colour_that_has_no_name_is_none_of_the_known_ones(reader: ShapesReader) -> None:
    asked = Caption("large", "red", "square", "in the centre", "white")
    cover = pictures.coverage(asked.shape, asked.size, asked.place, 64)[..., None]
    drawn = np.rint(246 + cover * (np.array([128, 0, 128]) - 246)).astype(np.uint8)
    assert [one["colour"] for one in reader.read(drawn)] == [""]


def test_two_things_are_both_read(reader: ShapesReader) -> None:
    one = Caption("small", "red", "circle", "on the left", "white")
    for colour in ("blue", "black", "pink"):
        other = Caption("small", colour, "star", "on the right", "white")
        found = {frozenset(thing.items()) for thing in reader.read(both(one, other))}
        assert found == {frozenset(parse(caption.text()).items()) for caption in (one, other)}


def both(one: Caption, other: Caption) -> Pictures:
    """Two things on the background of the first."""
    drawn = pictures.draw(one, 64).astype(float)
    cover = pictures.coverage(other.shape, other.size, other.place, 64)[..., None]
    ink = np.array(pictures.RGB[other.colour], float)
    return np.rint(drawn + cover * (ink - drawn)).astype(np.uint8)


def test_captions_that_are_not_of_the_local_set_or_that_no_picture_shows_are_refused() -> None:
    real = [one for one in HELDOUT if one.shape != "ring"][:100]
    pairs = [(stored(real), texts(real))]
    with pytest.raises(StepError, match="pictures of the local set alone, not 'a dog'"):
        ShapesReader(pairs, ["a dog"])
    with pytest.raises(StepError, match="no held-out picture shows 'ring'; hold out more"):
        ShapesReader(pairs, ["a small red ring on the left on a blue background"])
