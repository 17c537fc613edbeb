"""The filters on what published tables tell.

Names of columns are those of LAION-400M, LAION-5B, its aesthetic subsets and re-LAION; of COYO-700M
(https://github.com/kakaobrain/coyo-dataset); of DataComp (https://huggingface.co/datasets/mlfoundations/datacomp_pools);
and of what img2dataset writes, whose `width` is the stored picture's and whose `original_width` the one before it.
"""

from typing import Any, Final

from pydantic import Field

from params.filters import Filter, TableColumn
from params.model import added

SIDES: Final = (TableColumn("width", ("original_width", "width")), TableColumn("height", ("original_height", "height")))
"""Of the picture before it was resized, in pixels."""
AESTHETIC: Final = ("aesthetic", "aesthetic_score", "aesthetics_score", "prediction", "aesthetic_score_laion_v2")
SIMILARITY: Final = ("similarity", "clip_similarity", "clip_l14_similarity_score", "clip_similarity_vitl14")
# LAION-400M's tag. UNSURE is unsafe here: nobody found the picture safe.
NSFW_TAGS: Final = {"unlikely": 0.0, "unsure": 1.0, "nsfw": 1.0}
CAPTION_LENGTH: Final = TableColumn("caption", kind="characters")


class TooSmall(Filter):
    """The shorter side is below the minimum."""

    cause = "too_small"
    columns = SIDES
    measured = True
    min_image_size_px: int = Field(64, ge=0)
    """Pictures whose shorter side is below this are left out; and those below image_size_px, unless upscale is
    set. [extent]"""
    upscale: bool = added(False)
    """Whether pictures from min_image_size_px up to image_size_px are enlarged, and counted as upscaled. [extent]"""
    image_size_px: int = Field(256, ge=16, le=4096)
    """Side of the stored picture, in pixels."""

    @property
    def least_px(self) -> int:
        """Shorter side that a picture needs."""
        return self.min_image_size_px if self.upscale else max(self.min_image_size_px, self.image_size_px)

    def keeps(self, width: Any, height: Any) -> Any:
        return (width >= self.least_px) & (height >= self.least_px)


class AspectRatio(Filter):
    """More elongated than allowed."""

    cause = "aspect_ratio"
    columns = SIDES
    measured = True
    max_aspect_ratio: float = Field(3.0, ge=1.0)
    """Pictures more elongated than this are left out. [extent]"""

    def keeps(self, width: Any, height: Any) -> Any:
        return (width <= self.max_aspect_ratio * height) & (height <= self.max_aspect_ratio * width)


class Aesthetic(Filter):
    """The aesthetic score is below the minimum, or missing."""

    cause = "aesthetic"
    columns = (TableColumn("aesthetic", AESTHETIC),)
    min_aesthetic_score: float = Field(0.0, ge=0.0, le=10.0)
    """Rows with a smaller score in the table are left out; 0: no filter (LAION-Aesthetics: 4.5 to 6.5). [extent]"""

    def keeps(self, aesthetic: Any) -> Any:
        return aesthetic >= self.min_aesthetic_score


class Watermark(Filter):
    """The probability of a watermark is above the maximum, or missing."""

    cause = "watermark"
    columns = (TableColumn("watermark", ("pwatermark", "watermark_score")),)
    max_watermark: float = Field(1.0, ge=0.0, le=1.0)
    """Rows whose picture more probably has a watermark are left out; 1: no filter (LAION: 0.8). [extent]"""

    def keeps(self, watermark: Any) -> Any:
        return watermark <= self.max_watermark


class Unsafe(Filter):
    """The probability of unsafe content is above the maximum, or missing."""

    cause = "unsafe"
    columns = (TableColumn("unsafe", ("punsafe", "nsfw_score", "nsfw_score_opennsfw2", "nsfw"), NSFW_TAGS),)
    max_unsafe: float = Field(1.0, ge=0.0, le=1.0)
    """Rows whose picture is more probably unsafe are left out; 1: no filter (Stable Diffusion 2: 0.1). [extent]"""

    def keeps(self, unsafe: Any) -> Any:
        return unsafe <= self.max_unsafe


class Similarity(Filter):
    """The CLIP similarity of picture and caption is below the minimum, or missing."""

    cause = "similarity"
    columns = (TableColumn("similarity", SIMILARITY),)
    min_similarity: float = Field(-1.0, ge=-1.0, le=1.0)
    """Rows whose picture and caption are less alike to CLIP are left out; -1: no filter (LAION-2B: 0.28). [extent]"""

    def keeps(self, similarity: Any) -> Any:
        return similarity >= self.min_similarity


class Language(Filter):
    """The caption's language is unknown, or not one of those asked for."""

    cause = "language"
    columns = (TableColumn("language", ("language", "lang"), kind="text"),)
    languages: tuple[str, ...] = ()
    """Only captions in these languages, as the table names them; empty: no filter. [extent]"""

    def keeps(self, language: Any) -> Any:
        wanted = {name.strip().lower() for name in self.languages}
        return [text.lower() in wanted for text in language.to_pylist()]


class ShortCaption(Filter):
    """The caption has fewer characters than the minimum."""

    cause = "short_caption"
    columns = (CAPTION_LENGTH,)
    min_caption_characters: int = Field(0, ge=0)
    """Rows with a shorter caption are left out (LAION: 5). [extent]"""

    def keeps(self, characters: Any) -> Any:
        return characters >= self.min_caption_characters


class LongCaption(Filter):
    """The caption has more characters than the maximum."""

    cause = "long_caption"
    columns = (CAPTION_LENGTH,)
    max_caption_characters: int = Field(0, ge=0)
    """Rows with a longer caption are left out; 0: no filter. [extent]"""

    def keeps(self, characters: Any) -> Any:
        return characters <= self.max_caption_characters
