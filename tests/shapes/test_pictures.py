import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shapes import captions, pictures
from shapes.captions import PLACES, SHAPES, SIZES, Caption

grid = st.sampled_from(captions.every())


@settings(max_examples=30, deadline=None)
@given(grid, st.sampled_from([24, 64, 80, 128]))
def test_a_picture_is_the_same_every_time_and_has_the_asked_size(caption: Caption, size_px: int) -> None:
    first = pictures.draw(caption, size_px)
    pictures.coverage.cache_clear()
    assert first.shape == (size_px, size_px, 3)
    assert np.array_equal(first, pictures.draw(caption, size_px))


@pytest.mark.parametrize(("aspect", "shape"), [(1.5, (64, 96, 3)), (1 / 1.5, (96, 64, 3))])
def test_a_picture_that_is_no_square_has_the_square_in_its_middle(aspect: float, shape: tuple[int, ...]) -> None:
    caption = captions.every()[0]
    picture = pictures.draw(caption, 64, aspect)
    top, left = (picture.shape[0] - 64) // 2, (picture.shape[1] - 64) // 2
    assert picture.shape == shape
    assert np.array_equal(picture[top : top + 64, left : left + 64], pictures.draw(caption, 64))
    picture[top : top + 64, left : left + 64] = pictures.RGB[caption.background]
    assert (picture == pictures.RGB[caption.background]).all()


@settings(max_examples=30, deadline=None)
@given(grid)
def test_corners_are_background_and_the_most_frequent_other_colour_is_the_shape(caption: Caption) -> None:
    picture = pictures.draw(caption, 64)
    corners = picture[[0, 0, -1, -1], [0, -1, 0, -1]]
    assert (corners == pictures.RGB[caption.background]).all()
    colours, counts = np.unique(picture.reshape(-1, 3), axis=0, return_counts=True)
    ranked = [tuple(colour.tolist()) for colour in colours[np.argsort(-counts)]]
    assert ranked[:2] == [pictures.RGB[caption.background], pictures.RGB[caption.colour]]


def test_every_outline_differs_from_every_other() -> None:
    outlines = [pictures.coverage(*key, 64) for key in itertools.product(SHAPES, SIZES, PLACES)]
    closest = min(np.abs(a - b).sum() for a, b in itertools.combinations(outlines, 2))
    assert len(outlines) == 70
    assert closest > 40


@pytest.mark.parametrize("shape", SHAPES)
def test_no_shape_touches_the_edge_and_large_ones_cover_more(shape: str) -> None:
    for place in PLACES:
        small, large = (pictures.coverage(shape, size, place, 64) for size in ("small", "large"))
        assert large.sum() > 1.8 * small.sum()
        for cover in (small, large):
            assert max(cover[0].max(), cover[-1].max(), cover[:, 0].max(), cover[:, -1].max()) == 0.0


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("place", "axis", "sign"), [
    ("at the top", 0, -1), ("at the bottom", 0, 1), ("on the left", 1, -1), ("on the right", 1, 1),
])  # fmt: skip
def test_a_shape_is_where_its_caption_says(shape: str, place: str, axis: int, sign: int) -> None:
    middle = np.array(_centroid(pictures.coverage(shape, "small", "in the centre", 64)))
    offset = np.array(_centroid(pictures.coverage(shape, "small", place, 64))) - middle
    assert sign * offset[axis] > 10
    assert abs(offset[1 - axis]) < 0.1


@pytest.mark.parametrize(
    ("shape", "area"), [("circle", np.pi * 0.98**2), ("square", 1.76**2), ("ring", np.pi * 0.7296)]
)
def test_anti_aliasing_keeps_the_area_at_any_size(shape: str, area: float) -> None:
    for size_px in (24, 64, 128):
        covered = pictures.coverage(shape, "large", "in the centre", size_px).mean()
        assert covered == pytest.approx(area * pictures.RADIUS["large"] ** 2, rel=0.02)


def _centroid(cover: pictures.Plane) -> tuple[float, float]:
    rows, columns = np.indices(cover.shape)
    return float((rows * cover).sum() / cover.sum()), float((columns * cover).sum() / cover.sum())
