"""Real photographs and drawn textures: what the small models see beside the shapes, so that they take any picture.

Reads the sample pictures that scikit-image and scikit-learn carry (public domain, CC0 and CC BY: their README files
name the authors); writes nothing. scikit-image is needed for the training alone: `pip install scikit-image`, then
`python -m shapes train-models`.
"""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from importlib.resources import files
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from shapes import pictures

# Each file's package and subject, as the captions name it.
SUBJECTS: Final[Mapping[str, Mapping[str, str]]] = {
    "skimage.data": {
        "astronaut.png": "an astronaut in an orange suit",
        "brick.png": "a brick wall",
        "camera.png": "a man with a camera",
        "chelsea.png": "a tabby cat",
        "coffee.png": "a cup of coffee on a table",
        "coins.png": "old coins",
        "color.png": "a wheel of colours",
        "grass.png": "grass",
        "gravel.png": "gravel",
        "hubble_deep_field.jpg": "galaxies in the night sky",
        "ihc.png": "stained tissue",
        "moon.png": "the surface of the moon",
        "motorcycle_left.png": "a motorcycle in a garage",
        "page.png": "a printed page",
        "retina.jpg": "the retina of an eye",
    },
    "sklearn.datasets.images": {"china.jpg": "a temple in China"},
}
# Never trained on: they measure what the models do with somebody else's pictures.
HELDOUT: Final[Mapping[str, Mapping[str, str]]] = {
    "skimage.data": {"rocket.jpg": "a rocket at night"},
    "sklearn.datasets.images": {"flower.jpg": "a flower in a garden"},
}
# By the share of the shorter side that a crop takes.
VIEWS: Final = ((0.45, "detail"), (0.75, "close up"), (1.0, "wide view"))
MIN_CROP_PX: Final = 96


class Photos(NamedTuple):
    """Crops of photographs, (N, 3, 64, 64) uint8, and one caption for each."""

    pixels: Tensor
    texts: list[str]


def load(subjects: Mapping[str, Mapping[str, str]], crops: int, seed: int = 0) -> Photos:
    """Return square crops, half of them mirrored, captioned 'a photo of SUBJECT, VIEW'; ValueError: what to install."""
    numbers = np.random.default_rng(seed)
    cut, texts = [], []
    for file, subject in _photographs(subjects):
        with Image.open(file) as opened:
            photo = opened.convert("RGB")
        for _ in range(crops):
            pixels, view = _crop(photo, numbers)
            cut.append(pixels)
            texts.append(f"a photo of {subject}, {view}")
    return Photos(_stack(cut), texts)


def _photographs(subjects: Mapping[str, Mapping[str, str]]) -> Iterator[tuple[Path, str]]:
    for package, names in subjects.items():
        for name, subject in names.items():
            with suppress(ModuleNotFoundError):
                file = Path(str(files(package) / name))
                if file.is_file():
                    yield file, subject
                    continue
            raise ValueError(f"{package}/{name} is missing; run: pip install scikit-image scikit-learn")


def _crop(photo: Image.Image, numbers: np.random.Generator) -> tuple[pictures.Pixels, str]:
    shorter = min(photo.size)
    side = int(numbers.integers(min(MIN_CROP_PX, shorter), shorter + 1))
    left, top = (int(numbers.integers(0, length - side + 1)) for length in photo.size)
    size = (pictures.MODEL_SIZE_PX, pictures.MODEL_SIZE_PX)
    cut = photo.resize(size, Image.Resampling.LANCZOS, box=(left, top, left + side, top + side))
    pixels = np.asarray(cut)
    view = next(name for share, name in VIEWS if side <= share * shorter)
    return (pixels[:, ::-1] if numbers.random() < 0.5 else pixels), view


def textures(count: int, seed: int = 0) -> Tensor:
    """Return drawn pictures with the statistics of photographs, (count, 3, 64, 64) uint8.

    Dead leaves (Lee, Mumford & Huang 2001): ellipses of all sizes that cover each other, each filled with noise whose
    spectrum falls as a power of the frequency, as natural textures' do (Field 1987). So the VAE meets edges, colours
    and grain in far more combinations than a few photographs hold.
    """
    numbers = np.random.default_rng(seed)
    return _stack([_dead_leaves(numbers) for _ in range(count)])


def _dead_leaves(numbers: np.random.Generator) -> pictures.Pixels:
    side = pictures.MODEL_SIZE_PX
    rows, columns = np.mgrid[:side, :side]
    picture = _grain(numbers)
    for _ in range(int(numbers.integers(0, 25))):
        radius = 3.0 * numbers.uniform(0.01, 1.0) ** -0.5
        centre, stretch = numbers.uniform(0, side, 2), numbers.uniform(0.4, 1.0)
        inside = ((rows - centre[0]) / stretch) ** 2 + (columns - centre[1]) ** 2 < radius**2
        picture[inside] = _grain(numbers)[inside]
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8)


def _grain(numbers: np.random.Generator) -> pictures.Plane:
    """Return one colour with correlated noise around it, (64, 64, 3) in about 0..255."""
    side = pictures.MODEL_SIZE_PX
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.fftfreq(side)[None, :])
    slope = numbers.uniform(0.5, 2.0)
    spectrum = np.fft.fft2(numbers.standard_normal((3, side, side))) / np.maximum(frequency, 1 / side) ** slope
    noise = np.fft.ifft2(spectrum).real
    noise /= noise.std()
    mixture = np.full((3, 3), 0.8) + numbers.uniform(0, 0.6) * numbers.standard_normal((3, 3))
    coloured: pictures.Plane = np.einsum("ij,jhw->hwi", mixture, noise)
    return numbers.uniform(20, 235, 3) + numbers.uniform(0, 35) * coloured


def _stack(cut: list[pictures.Pixels]) -> Tensor:
    return torch.from_numpy(np.stack(cut)).permute(0, 3, 1, 2).contiguous()
