import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steps.data.encoding.buckets import Buckets, Size, buckets_of

sides = st.sampled_from([64, 256, 320, 512, 768])
steps = st.sampled_from([8, 16, 64])
ratios = st.floats(1.0, 4.0)


@given(sides, ratios, steps)
def test_buckets_have_about_the_area_of_the_square_and_none_has_more(side: int, ratio: float, step: int) -> None:
    sizes = buckets_of(side, ratio, step).sizes
    assert Size(side, side) in sizes
    assert {Size(size.width_px, size.height_px) for size in sizes} == set(sizes), "every shape in both directions"
    assert list(sizes) == sorted(sizes, key=lambda size: size.ratio)
    for height, width in set(sizes) - {Size(side, side)}:
        assert height % step == width % step == 0
        assert max(height, width) <= ratio * min(height, width)
        assert side**2 - step * min(height, width) < height * width <= side**2


@given(sides, ratios, steps, st.floats(0.1, 10.0))
def test_no_picture_as_large_as_the_square_is_blown_up(side: int, ratio: float, step: int, picture: float) -> None:
    """Its shorter side is the square's; the bucket is cut out of it."""
    width, height = (round(side * picture), side) if picture > 1 else (side, round(side / picture))
    buckets = buckets_of(side, ratio, step)
    size = buckets.sizes[int(buckets.nearest(np.array([width]), np.array([height]))[0])]
    assert size.width_px <= width + 1 and size.height_px <= height + 1


def test_a_picture_goes_to_the_nearest_shape() -> None:
    buckets = buckets_of(512, 4.0, 64)
    for size in buckets.sizes:
        near = np.array([size.width_px * 10 + 3]), np.array([size.height_px * 10])
        assert buckets.sizes[int(buckets.nearest(*near)[0])] == size
    ends = buckets.nearest(np.array([100_000, 1]), np.array([1, 100_000]))
    assert ends.tolist() == [len(buckets.sizes) - 1, 0]


def test_without_a_ratio_there_are_squares_alone() -> None:
    assert buckets_of(256, 1.0, 64) == Buckets((Size(256, 256),), (0,))
    assert buckets_of(256, 1.0, 64).nearest(np.array([10, 500]), np.array([500, 10])).tolist() == [0, 0]


@given(st.lists(st.integers(0, 50), min_size=7, max_size=7), st.integers(1, 40))
def test_too_few_pictures_go_to_the_nearest_bucket_that_has_enough(counts: list[int], at_least: int) -> None:
    buckets = buckets_of(256, 2.5, 32)
    assert len(buckets.sizes) == 7
    merged = buckets.merged(np.array(counts), at_least)
    enough = [size for size, count in zip(buckets.sizes, counts, strict=True) if count >= at_least]
    assert list(merged.sizes) == (enough or [buckets.sizes[int(np.argmax(counts))]])
    taking = merged.of_sizes(buckets.sizes).tolist()
    for size, taken in zip(buckets.sizes, taking, strict=True):
        distances = [abs(np.log(other.ratio / size.ratio)) for other in merged.sizes]
        assert distances[taken] == pytest.approx(min(distances))
        picture = np.array([size.width_px]), np.array([size.height_px])
        assert merged.nearest(*picture).tolist() == [taken]
