"""A picture's bytes to pixels, with what is to be known of it: as libjpeg-turbo and Pillow read it, or not at all.

A JPEG is decoded strictly: libjpeg calls damage a warning and goes on with grey, or with what the bits happen to say
(libjpeg.txt, "corrupt data"). What else Pillow opens it reads whole or refuses. Of several frames the first one counts.
16 bits are scaled to 8, palettes become colours, and what is transparent lies on white.
"""

import io
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import simplejpeg
from PIL import ExifTags, Image
from PIL.GifImagePlugin import GifImageFile
from PIL.TiffImagePlugin import TiffImageFile

from steps.data.causes import Cause, LostRowError
from steps.data.pictures.jpeg import EOI, MAX_SCANS, jpeg_structure, tidied
from steps.data.pictures.perceptual_hash import Pixels
from steps.data.pictures.picture_format import format_of, is_cut, refusal
from steps.data.pictures.stated_colours import stated_profile, without_words

_ANIMATED_FORMATS: Final = frozenset({"GIF", "WEBP", "PNG", "AVIF"})
# Pillow obeys TIFF's tag while it reads the pixels. HEIC and JPEG XL have an orientation of their own, which their
# decoders obey, and EXIF's does not count (ISO/IEC 23008-12, 18181-2).
_TURNED_BY_DECODERS: Final = frozenset({"TIFF", "HEIF", "JXL"})
_PILLOW_MODES: Final = {"1": "L", "PA": "RGBA", "La": "LA", "RGBa": "RGBA", "RGBX": "RGB", "YCbCr": "RGB", "HSV": "RGB"}
_SAMPLE_FORMAT, _BITS_PER_SAMPLE, _PHOTOMETRIC = 339, 258, 262
_UNSIGNED: Final = frozenset({1, 4})
_READ_MODES: Final = frozenset({"L", "RGB", "CMYK"})


@dataclass(frozen=True, eq=False)
class DecodedPicture:
    """A picture as it is stored: not yet upright, and in the colours of its profile."""

    pixels: Pixels
    """[H, W, channels]: grey, RGB or CMYK (0: no ink)."""
    orientation: int
    """EXIF's, 1 to 8: 1 is upright."""
    profile: bytes
    """Embedded ICC profile; empty where there is none."""
    has_alpha: bool
    """Whether something of it is transparent."""
    is_animated: bool
    """Whether it has more frames."""
    format: str


class PictureFile:
    """A picture whose header was read."""

    def __init__(self, content: bytes) -> None:
        """Open it. Raises LostRowError."""
        self._content = content
        if cause := refusal(content):
            raise LostRowError(cause)
        self.format = format_of(content) or ""
        if self.format == "JPEG":
            self._structure = jpeg_structure(content)
            if not self._structure.is_decodable:
                raise LostRowError(Cause.UNSUPPORTED_FORMAT)
            if self._structure.scans > MAX_SCANS:
                raise LostRowError(Cause.CORRUPT)
        self._picture = self._opened()

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the stored pixels."""
        return self._picture.size

    def decode(self) -> DecodedPicture:
        """Read the pixels of the first frame. Raises LostRowError."""
        try:
            is_animated = self.format in _ANIMATED_FORMATS and bool(getattr(self._picture, "is_animated", False))
            stated = stated_profile(self._content, self.format)
            if self.format == "JPEG":
                pixels, has_alpha = self._jpeg_pixels()
            else:
                pixels, has_alpha = _pixels(_loaded(self._picture))
            orientation = 1 if self.format in _TURNED_BY_DECODERS else _orientation(_exif(self._picture))
        except LostRowError:
            raise
        except Exception as error:  # what a parser raises on hostile bytes is not to be foreseen
            # A TIFF may have its data anywhere: only its decoder sees that some of it is missing.
            raise self._damage(self.format == "TIFF" and "truncated" in str(error)) from None
        profile = self._picture.info.get("icc_profile") or b""
        if stated is not None and (self.format == "PNG" or not profile):
            profile = stated
        return DecodedPicture(pixels, orientation, bytes(profile), has_alpha, is_animated, self.format)

    def _opened(self) -> Image.Image:
        try:
            # A JPEG may begin a file of several (MPO), as cameras and phones write them.
            names = ("JPEG", "MPO") if self.format == "JPEG" else (self.format,)
            content = without_words(self._content) if self.format == "PNG" else self._content
            return Image.open(io.BytesIO(content), formats=names)
        except (Image.DecompressionBombError, Image.DecompressionBombWarning):
            raise LostRowError(Cause.TOO_MANY_PIXELS) from None
        except Exception:
            if self.format == "TIFF" and _is_of_unknown_pixels(self._content):
                raise LostRowError(Cause.UNSUPPORTED_FORMAT) from None
            raise self._damage() from None

    def _damage(self, is_truncated: bool = False) -> LostRowError:
        return LostRowError(Cause.TRUNCATED if is_truncated or is_cut(self._content) else Cause.CORRUPT)

    def _jpeg_pixels(self) -> tuple[Pixels, bool]:
        if not self._structure.is_complete:
            raise self._damage()
        end = self._structure.end
        # The end marker alone may be missing: nothing but it is lost.
        content = self._content + EOI if end is None else self._content[:end]
        space = "CMYK" if self._picture.mode == "CMYK" else "GRAY" if self._picture.mode == "L" else "RGB"
        pixels = _strictly_decoded(content, space)
        # Ink is stored as Adobe does: 255 is none of it.
        return (255 - pixels if space == "CMYK" else pixels), False


def _strictly_decoded(content: bytes, space: str) -> Pixels:
    """Return the pixels of a JPEG. Raises ValueError where it is damaged."""
    try:
        return np.asarray(simplejpeg.decode_jpeg(content, space))
    except ValueError:
        return np.asarray(simplejpeg.decode_jpeg(tidied(content), space))


def _is_of_unknown_pixels(content: bytes) -> bool:
    """Return whether a TIFF that does not open has samples of a kind that Pillow does not know."""
    try:
        TiffImageFile(io.BytesIO(content))
    except Exception as error:
        return "unknown pixel mode" in str(error)
    return False


def _loaded(picture: Image.Image) -> Image.Image:
    """Read the pixels. What the first frame of a GIF does not cover is transparent, as browsers show it."""
    covered = picture.tile[0].extents if isinstance(picture, GifImageFile) and picture.tile else None
    picture.load()
    if covered is None or covered == (0, 0, *picture.size):
        return picture
    whole = Image.new("RGBA", picture.size)
    whole.paste(picture.convert("RGBA").crop(covered), covered)
    return whole


def _exif(picture: Image.Image) -> bytes | None:
    """Return the EXIF block; that of a PNG may stand in a text, in hexadecimal, as ImageMagick writes it."""
    text = picture.info.get("Raw profile type exif")
    if "exif" in picture.info or not isinstance(text, str):
        return picture.info.get("exif")
    try:
        return bytes.fromhex("".join(text.split("\n")[3:]))
    except ValueError:
        return None


def _orientation(exif: bytes | None) -> int:
    """Return what EXIF says; 1 where it says nothing that is a number from 1 to 8."""
    if not exif:
        return 1
    tags = Image.Exif()
    try:
        tags.load(exif)
        orientation = tags.get(ExifTags.Base.Orientation, 1)
    except Exception:  # broken EXIF is no reason to lose the picture
        return 1
    return orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1


def _pixels(picture: Image.Image) -> tuple[Pixels, bool]:
    """Return a loaded picture's pixels in the space of its profile, and whether something was transparent."""
    if not _UNSIGNED.issuperset(_tiff_tag(picture, _SAMPLE_FORMAT, (1,))):
        raise LostRowError(Cause.UNSUPPORTED_FORMAT)
    if picture.mode.startswith("I;16"):
        return _pixels_of_16_bits(picture)
    if "transparency" in picture.info and picture.mode in ("1", "L", "P", "RGB"):
        picture = picture.convert("RGBA")
    elif picture.mode == "P":
        picture = picture.convert("RGBA" if picture.palette and picture.palette.mode == "RGBA" else "RGB")
    elif picture.mode in _PILLOW_MODES:
        picture = picture.convert(_PILLOW_MODES[picture.mode])
    if picture.mode in ("LA", "RGBA"):
        return _on_white(picture)
    if picture.mode not in _READ_MODES:
        # CIELAB, and numbers without a range: 32-bit integers and floats.
        raise LostRowError(Cause.UNSUPPORTED_FORMAT)
    return _array(picture), False


def _tiff_tag(picture: Image.Image, number: int, default: Any) -> Any:
    return picture.tag_v2.get(number, default) if isinstance(picture, TiffImageFile) else default


def _pixels_of_16_bits(picture: Image.Image) -> tuple[Pixels, bool]:
    wide = np.asarray(picture).astype(np.uint16)
    # A TIFF may have 12 bits, and 0 for white; Pillow leaves both as they are.
    grey = (wide >> (_tiff_tag(picture, _BITS_PER_SAMPLE, (16,))[0] - 8)).astype(np.uint8)[..., None]
    if _tiff_tag(picture, _PHOTOMETRIC, 1) == 0:
        grey = 255 - grey
    key = picture.info.get("transparency")
    if not isinstance(key, int) or not (wide == key).any():
        return grey, False
    grey[wide == key] = 255
    return grey, True


def _on_white(picture: Image.Image) -> tuple[Pixels, bool]:
    alpha = picture.getchannel("A")
    colours = picture.convert(picture.mode.removesuffix("A"))
    if alpha.getextrema()[0] == 255:
        return _array(colours), False
    white = Image.new(colours.mode, colours.size, "white")
    white.paste(colours, mask=alpha)
    return _array(white), True


def _array(picture: Image.Image) -> Pixels:
    array = np.asarray(picture)
    return array if array.ndim == 3 else array[..., None]
