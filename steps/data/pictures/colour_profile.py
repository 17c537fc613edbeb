"""Embedded ICC profiles to sRGB, by LittleCMS.

A stored picture has no profile, so its numbers have to be sRGB's: those of Display P3 (phones), Adobe RGB and ProPhoto
(cameras) or of a printer's inks look washed out or wrong otherwise. Profiles are as hostile as pictures: their size is
limited, and one that LittleCMS refuses is ignored, which the table of samples says.
"""

import io
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import numpy as np
from PIL import Image, ImageCms

from steps.data.pictures.perceptual_hash import Pixels

MAX_PROFILE_BYTES: Final = 4 << 20
"""Profiles of printers with large tables have some 2 MB."""
CACHE_SIZE: Final = 64
INVISIBLE_DIFFERENCE: Final = 2
"""Of 255: a profile that changes no colour by more is sRGB, and most profiles on the web are."""
DESCRIPTION_CHARACTERS: Final = 80

# A profile's space to Pillow's mode, of pictures with so many channels.
_MODES: Final = {"GRAY": "L", "RGB": "RGB", "CMYK": "CMYK"}
_CHANNELS: Final = {"L": 1, "RGB": 3, "CMYK": 4}
_INTENT: Final = ImageCms.Intent.RELATIVE_COLORIMETRIC
_FLAGS: Final = ImageCms.Flags.BLACKPOINTCOMPENSATION
_SRGB: Final = ImageCms.createProfile("sRGB")
_LEVELS: Final = np.arange(0, 256, 17, dtype=np.uint8)
_PROBE: Final = Image.fromarray(np.stack(np.meshgrid(_LEVELS, _LEVELS, _LEVELS), -1).reshape(16, 256, 3))


@dataclass(frozen=True)
class ProfileTransform:
    """From one profile to sRGB."""

    description: str
    """What the profile calls itself."""
    mode: str
    """Pillow's name of the space that it is of."""
    transform: Any
    """LittleCMS's; None where the profile is sRGB."""

    def apply(self, pixels: Pixels) -> Pixels:
        """Return pixels [H, W, channels] as sRGB, [H, W, 3]."""
        if pixels.shape[2] == 1 and self.mode == "RGB":
            pixels = np.repeat(pixels, 3, axis=2)
        if self.transform is None:
            return pixels
        picture = Image.frombytes(self.mode, pixels.shape[1::-1], np.ascontiguousarray(pixels).tobytes())
        return np.asarray(ImageCms.applyTransform(picture, self.transform))


@lru_cache(CACHE_SIZE)
def profile_transform(content: bytes, channels: int) -> ProfileTransform | None:
    """Return the way from a profile to sRGB, for one thread; None where it is broken, too large, or does not fit."""
    if len(content) > MAX_PROFILE_BYTES:
        return None
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(content))
        mode = _MODES.get(profile.profile.xcolor_space.strip(), "")
        # A grey picture with the profile of its camera: its grey is that of red, green and blue alike.
        if _CHANNELS.get(mode) != channels and (mode, channels) != ("RGB", 1):
            return None
        transform = ImageCms.buildTransform(profile, _SRGB, mode, "RGB", _INTENT, _FLAGS)
        description = ImageCms.getProfileDescription(profile)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None
    words = "".join(c if c.isprintable() else " " for c in description).split()
    text = " ".join(words)[:DESCRIPTION_CHARACTERS]
    return ProfileTransform(text, mode, None if _is_srgb(transform, mode) else transform)


def _is_srgb(transform: Any, mode: str) -> bool:
    if mode != "RGB":
        return False
    changed = np.asarray(ImageCms.applyTransform(_PROBE, transform), np.int16)
    return int(np.abs(changed - np.asarray(_PROBE, np.int16)).max()) <= INVISIBLE_DIFFERENCE
