"""The reader that is given to img2dataset as its resizer: pictures as they are meant to be seen, or a cause.

img2dataset's own ignores orientation and colour profiles, clips 16 bits and takes a decoder's grey for a picture. This
one decodes strictly, shrinks as img2dataset does (by area: a plain JPEG gives the very same bytes), converts colours to
sRGB, blurs boxes, turns upright, crops, and measures what was done.
"""

import io
import traceback
import warnings
from collections.abc import Callable, Iterable
from typing import Any, Final

import cv2
import numpy as np
from PIL import Image

from params.filters import FILTERS
from params.filters.published import SIDES
from params.programs import DownloadSettings
from steps.data.causes import Cause, LostRowError
from steps.data.pictures.colour_profile import profile_transform
from steps.data.pictures.perceptual_hash import Pixels, colour_layout, perceptual_hash
from steps.data.pictures.picture_decoder import DecodedPicture, PictureFile
from steps.data.pictures.picture_measures import PictureMeasures
from steps.data.shards.row_checks import Box

# What img2dataset takes: bytes, width, height, original width and height, or why there are none.
Resized = tuple[bytes | None, int | None, int | None, int | None, int | None, str | None]

_TURNED: Final = frozenset({5, 6, 7, 8})


class FetchedPicture(io.BytesIO):
    """A body on its way through img2dataset, which hands streams to its resizer and no more."""

    def __init__(self, content: bytes, row: int, boxes: Iterable[Box] = ()) -> None:
        super().__init__(content)
        self.row, self.boxes = row, tuple(boxes)


class PictureReader:
    """Decodes, shrinks and measures. Handed to img2dataset's Downloader, which calls it from one thread."""

    def __init__(
        self, settings: DownloadSettings, is_blocked: Callable[[int | None], bool] = lambda look: False
    ) -> None:
        """`is_blocked` judges a look."""
        self._settings, self._is_blocked = settings, is_blocked
        self._filters = [kind.from_settings(settings) for kind in FILTERS if kind.measured and kind.columns == SIDES]
        self._blur: Any = None
        self.measured: dict[int, PictureMeasures] = {}
        """Of the kept pictures since the last shard began, by row."""
        cv2.setNumThreads(1)

    def __call__(self, stream: FetchedPicture, _boxes: object = None) -> Resized:
        """Return the picture as JPEG; an exception here would lose the whole shard."""
        try:
            return self._read(stream)
        except LostRowError as error:
            cause = error.cause
        except Exception:
            traceback.print_exc()
            cause = Cause.UNEXPECTED.value
        return None, None, None, None, None, cause

    def _read(self, stream: FetchedPicture) -> Resized:
        file = PictureFile(stream.getvalue())
        width, height = file.size
        if width * height > self._settings.max_image_megapixels * 10**6:
            raise LostRowError(Cause.TOO_MANY_PIXELS)
        for one in self._filters:
            if not np.all(one.keeps(np.float64(width), np.float64(height))):
                raise LostRowError(one.cause)
        decoded = file.decode()
        # Other tags than the header's may have turned it.
        original = decoded.pixels.shape[1::-1]
        if decoded.orientation in _TURNED:
            original = original[::-1]
        pixels, measures = self._shown(decoded, stream.boxes)
        if self._is_blocked(measures.perceptual_hash):
            raise LostRowError(Cause.BLOCKED_PICTURE)
        if self._settings.resize_mode == "center_crop":
            side = self._settings.image_size_px
            top, left = ((length - side) // 2 for length in pixels.shape[:2])
            pixels = pixels[top : top + side, left : left + side]
        self.measured[stream.row] = measures
        return self._encoded(pixels), pixels.shape[1], pixels.shape[0], original[0], original[1], None

    def _shown(self, decoded: DecodedPicture, boxes: tuple[Box, ...]) -> tuple[Pixels, PictureMeasures]:
        """Return the shrunk picture, whole, upright and in sRGB."""
        pixels = _scaled(decoded.pixels, self._settings.image_size_px)
        pixels, profile, ignored = self._in_srgb(pixels, decoded.profile)
        if boxes:
            pixels = self._blurred(pixels, boxes)
        pixels = _upright(pixels, decoded.orientation)
        return pixels, PictureMeasures(
            format=decoded.format,
            orientation=decoded.orientation,
            profile=profile,
            profile_ignored=ignored,
            has_alpha=decoded.has_alpha,
            is_animated=decoded.is_animated,
            is_upscaled=min(decoded.pixels.shape[:2]) < self._settings.image_size_px,
            perceptual_hash=perceptual_hash(pixels),
            colour_layout=colour_layout(pixels),
        )

    def _in_srgb(self, pixels: Pixels, profile: bytes) -> tuple[Pixels, str | None, bool]:
        """Return pixels [H, W, 3], what the profile is called, and whether it was of no use."""
        transform = profile_transform(profile, pixels.shape[2]) if profile else None
        if transform is None:
            return _without_profile(pixels), None, bool(profile)
        return transform.apply(pixels), transform.description, False

    def _blurred(self, pixels: Pixels, boxes: tuple[Box, ...]) -> Pixels:
        """Blur boxes (x and y of two corners, as fractions of the picture before it is turned), as img2dataset does."""
        if self._blur is None:
            from steps.data.shards.shard_writer import BoundingBoxBlurrer

            self._blur = BoundingBoxBlurrer()
        with warnings.catch_warnings():
            # It sets a flag of albumentations that is on its way out.
            warnings.simplefilter("ignore", DeprecationWarning)
            return np.asarray(self._blur(pixels, boxes))

    def _encoded(self, pixels: Pixels) -> bytes:
        flags = [int(cv2.IMWRITE_JPEG_QUALITY), self._settings.jpeg_quality]
        return cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), flags)[1].tobytes()


def _scaled(pixels: Pixels, shorter_px: int) -> Pixels:
    """Return pixels whose shorter side is `shorter_px`: shrunk by area, or blown up (Lanczos), as img2dataset does."""
    height, width = pixels.shape[:2]
    shorter = min(height, width)
    if shorter == shorter_px:
        return pixels
    scale = shorter_px / shorter
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    resized = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LANCZOS4)
    return np.asarray(resized, np.uint8).reshape(size[1], size[0], pixels.shape[2])


def _upright(pixels: Pixels, orientation: int) -> Pixels:
    """Undo what EXIF's orientation says of the stored pixels (EXIF 2.32, tag 0x0112)."""
    if orientation in _TURNED:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


def _without_profile(pixels: Pixels) -> Pixels:
    if pixels.shape[2] == 1:
        return np.repeat(pixels, 3, axis=2)
    if pixels.shape[2] == 4:
        ink = Image.frombytes("CMYK", pixels.shape[1::-1], np.ascontiguousarray(pixels).tobytes())
        return np.asarray(ink.convert("RGB"))
    return pixels
