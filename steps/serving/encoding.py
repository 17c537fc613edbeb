"""Pictures to files and to the answer's body."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import Any, Final

from steps.serving.pictures import Picture, Shape
from steps.serving.provenance import Provenance
from steps.serving.schema import (
    GeneratedPicture,
    GenerationRequest,
    GenerationResponse,
    GenerationSettings,
    PictureFormat,
)

# Visually lossless: JPEG without chroma subsampling.
JPEG_OPTIONS: Final = {"quality": 95, "subsampling": 0}
WEBP_OPTIONS: Final = {"quality": 92, "method": 4}


@dataclass(frozen=True)
class DrawnRequest:
    """A request with its pictures."""

    request: GenerationRequest
    shape: Shape
    seeds: tuple[int, ...]
    pictures: tuple[Picture, ...]
    model: str
    queue_s: float
    render_s: float

    def file(self, index: int, form: PictureFormat) -> bytes:
        """Return a picture as a file that says where it comes from."""
        provenance = self._provenance(index)
        options: dict[str, Any]
        if form == "png":
            options = {"pnginfo": provenance.png_text()}
        else:
            quality = JPEG_OPTIONS if form == "jpeg" else WEBP_OPTIONS
            options = {**quality, "exif": provenance.exif(), "xmp": provenance.xmp()}
        file = io.BytesIO()
        self.pictures[index].image.save(file, form.upper(), **options)
        return file.getvalue()

    def json(self, form: PictureFormat) -> bytes:
        """Return the JSON answer."""
        response = GenerationResponse(
            images=tuple(self._entry(index, form) for index in range(len(self.pictures))),
            model=self.model,
            settings=GenerationSettings(
                steps=self.shape.steps,
                guidance_scale=self.shape.guidance_scale,
                width=self.shape.width_px,
                height=self.shape.height_px,
                sampler=self.request.sampler,
            ),
            queue_s=round(self.queue_s, 4),
            render_s=round(self.render_s, 4),
        )
        return response.model_dump_json().encode("utf-8")

    def _entry(self, index: int, form: PictureFormat) -> GeneratedPicture:
        picture = self.pictures[index]
        return GeneratedPicture(
            image=base64.b64encode(self.file(index, form)).decode("ascii"),
            format=form,
            width=self.shape.width_px,
            height=self.shape.height_px,
            seed=self.seeds[index],
            prompt_index=index // self.request.num_images,
            flagged=picture.flagged,
            truncated=picture.truncated,
        )

    def _provenance(self, index: int) -> Provenance:
        settings = {
            "Seed": str(self.seeds[index]),
            "Steps": str(self.shape.steps),
            "Guidance scale": str(self.shape.guidance_scale),
            "Sampler": self.shape.sampler,
        }
        if self.request.embed_prompt:
            settings |= {"Prompt": self.request.texts[index], "Negative prompt": self.request.negative_prompt}
        return Provenance(self.model, settings)
