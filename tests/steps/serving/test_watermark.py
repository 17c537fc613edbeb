"""The invisible watermark: what it survives, what it changes, and what shows none."""

import io
import json
from typing import Any

import numpy as np
import pytest
from PIL import Image

from shapes import captions, pictures
from steps.serving.encoding import DrawnRequest
from steps.serving.pictures import Picture, Shape
from steps.serving.schema import PictureFormat, request_type
from steps.serving.watermark import LEAST_BITS, MARK, bits_found, mark
from tests.steps.serving.conftest import ARGUMENTS

COUNT = 12


def drawn(size_px: int) -> list[Image.Image]:
    """Return flat shapes and clouds, as many of each."""
    shapes = [Image.fromarray(pictures.draw(one, size_px)) for one in list(captions.every())[: 7 * COUNT : 7]]
    numbers = np.random.default_rng(0)
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(size_px), np.fft.fftfreq(size_px)))[..., None]
    frequency[0, 0] = 1 / size_px
    clouds = []
    for _ in range(COUNT):
        noise = np.fft.fft2(numbers.normal(size=(size_px, size_px, 3)), axes=(0, 1))
        plane = np.fft.ifft2(noise / frequency, axes=(0, 1)).real
        plane = (plane - plane.mean()) / plane.std() * 45 + 128
        clouds.append(Image.fromarray(plane.clip(0, 255).astype(np.uint8)))
    return [*shapes, *clouds]


def jpeg(image: Image.Image) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=75)
    return Image.open(file)


def half(image: Image.Image) -> Image.Image:
    return image.resize((image.width // 2, image.height // 2), Image.Resampling.LANCZOS)


@pytest.mark.parametrize("size_px", [64, 256])
@pytest.mark.parametrize("attack", [jpeg, half], ids=["jpeg 75", "half size"])
def test_the_mark_survives_in_95_of_100_pictures(size_px: int, attack: Any) -> None:
    assert np.mean([bits_found(attack(mark(image))) >= LEAST_BITS for image in drawn(size_px)]) >= 0.95


@pytest.mark.parametrize("size_px", [64, 256])
def test_a_picture_without_the_mark_shows_none(size_px: int) -> None:
    assert max(map(bits_found, drawn(size_px))) < LEAST_BITS


@pytest.mark.parametrize("size_px", [64, 256])
def test_the_mark_is_not_seen(size_px: int) -> None:
    for image in drawn(size_px):
        change = np.asarray(mark(image)).astype(float) - np.asarray(image)
        assert 10 * np.log10(255**2 / (change**2).mean()) > 38


@pytest.mark.parametrize("grey", [0, 128, 255])
@pytest.mark.parametrize("size", [(64, 64), (520, 264)])
def test_plain_pictures_hold_it_too_black_and_white_ones_among_them(grey: int, size: tuple[int, int]) -> None:
    assert bits_found(mark(Image.new("RGB", size, (grey,) * 3))) >= LEAST_BITS
    assert bits_found(Image.new("RGB", size, (grey,) * 3)) < LEAST_BITS


def test_a_picture_too_small_for_the_mark_stays_as_it_is() -> None:
    small = drawn(32)[0]
    assert mark(small) is small
    assert len(MARK) == 32


@pytest.mark.parametrize("form", ["png", "jpeg", "webp"])
def test_the_same_request_gives_the_same_marked_pixels_in_every_format(form: PictureFormat) -> None:
    image = drawn(64)[-1]
    request = request_type(ARGUMENTS).model_validate_json(json.dumps({"prompt": "a"}))
    shape, one = Shape(64, 64, 2, 3.0, "ddim"), (Picture(image, None, False),)
    marked, again, plain = (
        DrawnRequest(request, shape, (7,), one, "tiny", 0.0, 0.0, watermark=on).file(0, form)
        for on in (True, True, False)
    )
    assert marked == again
    assert bits_found(Image.open(io.BytesIO(marked))) >= LEAST_BITS > bits_found(Image.open(io.BytesIO(plain)))
