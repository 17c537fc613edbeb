import io

import numpy as np
import pytest
from PIL import Image, ImageDraw

from params.programs import DownloadSettings
from steps.data.collecting.deduplication import COLOUR_TOLERANCE
from steps.data.pictures.perceptual_hash import perceptual_hash
from steps.data.shards.picture_reader import FetchedPicture, PictureReader


def scene(colour: str = "red", size: int = 256) -> Image.Image:
    picture = Image.linear_gradient("L").resize((size, size)).convert("RGB")
    ImageDraw.Draw(picture).ellipse((size // 4, size // 8, size // 2, size // 2), fill=colour)
    return picture


def stored(picture: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def looks(content: bytes) -> tuple[int | None, np.ndarray]:
    reader = PictureReader(DownloadSettings(image_size_px=128, resize_mode="keep_ratio"))
    reader(FetchedPicture(content, 0))
    measured = reader.measured[0]
    return measured.perceptual_hash, np.frombuffer(measured.colour_layout, np.uint8).astype(np.int16)


@pytest.mark.parametrize(
    "copy",
    [stored(scene(size=700), "PNG"), stored(scene(), "JPEG", quality=60), stored(scene(), "WEBP", quality=50)],
)
def test_another_size_or_compression_looks_the_same(copy: bytes) -> None:
    (first, colours), (second, others) = looks(stored(scene(), "PNG")), looks(copy)
    assert first is not None and second is not None and (first ^ second).bit_count() <= 2
    assert (np.abs(colours - others) <= COLOUR_TOLERANCE // 2).all()


def test_another_colour_has_the_same_hash_and_is_told_apart_by_its_colours() -> None:
    # Equally light: Y is 0.299 R + 0.587 G + 0.114 B.
    (first, colours), (second, others) = (looks(stored(scene(colour), "PNG")) for colour in ("#ff2020", "#2063ff"))
    assert first is not None and second is not None and (first ^ second).bit_count() <= 3
    assert (np.abs(colours - others) > COLOUR_TOLERANCE).any()


def test_what_is_transparent_lies_on_white_and_what_is_turned_is_turned_back() -> None:
    drawings = []
    for side in (40, 80):
        drawing = Image.new("RGBA", (200, 200))
        ImageDraw.Draw(drawing).rectangle((30, 30, 30 + side, 30 + 2 * side), outline="black", width=9)
        drawings.append(stored(drawing, "PNG"))
    assert looks(drawings[0])[0] != looks(drawings[1])[0]
    upright = scene()
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = stored(upright.transpose(Image.Transpose.ROTATE_90), "PNG", exif=exif)
    assert looks(turned)[0] == looks(stored(upright, "PNG"))[0]


@pytest.mark.parametrize("colour", ["black", "white", "#336699"])
def test_a_flat_picture_has_no_hash(colour: str) -> None:
    assert perceptual_hash(np.asarray(Image.new("RGB", (64, 64), colour))) is None
    assert (
        perceptual_hash(np.asarray(Image.open(io.BytesIO(stored(Image.new("RGB", (64, 64), colour), "JPEG"))))) is None
    )


@pytest.mark.parametrize("size", [(32, 32), (64, 48), (341, 256), (640, 427)])
def test_the_hash_is_the_one_that_imagehash_has(size: tuple[int, int]) -> None:
    import imagehash

    differing = []
    for number in range(20):
        blots = np.random.default_rng(number).integers(0, 256, (12, 12, 3), np.uint8)
        picture = Image.fromarray(blots).resize(size, Image.Resampling.BICUBIC)
        expected = int(str(imagehash.phash(picture)), 16)
        differing.append(((perceptual_hash(np.asarray(picture)) or 0) ^ expected).bit_count())
    # Grey is rounded otherwise, and large pictures are shrunk in two steps.
    assert max(differing) <= 2 and differing.count(0) >= 12
