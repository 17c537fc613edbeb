"""Pictures to files that say where they come from, and to the answer's body.

A file tells by which model it was made, and from which seed: PNG in text chunks, JPEG and WebP in EXIF, all three in an
XMP packet whose DigitalSourceType is the IPTC's term for pictures made by a trained model
(https://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia). The same request gives the same pixels; and
the same bytes, but for the signature of the manifest, which no two files share.
"""

import base64
import io
import json
import re
from dataclasses import dataclass
from typing import Any, Final
from xml.sax.saxutils import escape

from PIL.ExifTags import IFD, Base
from PIL.Image import Exif
from PIL.PngImagePlugin import PngInfo

from steps.serving import schema
from steps.serving.notary import SOURCE_TYPE, Notary, digest
from steps.serving.pictures import Picture, Shape
from steps.serving.schema import GenerationRequest, GenerationSettings, PictureFormat
from steps.serving.watermark import mark

GENERATOR: Final = "sd-pipeline"
# Segments of a JPEG end at 64 KiB, and a character takes up to 12 bytes in ASCII JSON.
MAX_TEXT_CHARACTERS: Final = 2000
_NOT_IN_XML: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_XMP: Final = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="" xmlns:xmp="http://ns.adobe.com/xap/1.0/"
 xmlns:iptc="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" xmlns:dc="http://purl.org/dc/elements/1.1/">
<xmp:CreatorTool>{generator}</xmp:CreatorTool>
<iptc:DigitalSourceType>{source_type}</iptc:DigitalSourceType>
<dc:source>{model}</dc:source>
<dc:description><rdf:Alt><rdf:li xml:lang="x-default">{description}</rdf:li></rdf:Alt></dc:description>
</rdf:Description></rdf:RDF></x:xmpmeta>
<?xpacket end="w"?>"""

# Visually lossless: JPEG without chroma subsampling.
OPTIONS: Final = {"png": {}, "jpeg": {"quality": 95, "subsampling": 0}, "webp": {"quality": 92, "method": 4}}


def _provenance(form: PictureFormat, model: str, settings: dict[str, str]) -> dict[str, Any]:
    """Return what a picture says of itself, as Pillow's options; `settings` hold a prompt only where asked for."""
    description = json.dumps({name: _plain(text) for name, text in settings.items()})
    texts = {name: escape(_plain(text)) for name, text in {"model": model, "description": description}.items()}
    xmp = _XMP.format(generator=GENERATOR, source_type=SOURCE_TYPE, **texts)
    if form == "png":
        info = PngInfo()
        info.add_itxt("XML:com.adobe.xmp", xmp)
        info.add_text("Software", GENERATOR)
        for name, text in {"Model": model, **settings}.items():
            info.add_itxt(name, _plain(text))
        return {"pnginfo": info}
    exif = Exif()
    exif[Base.Software] = GENERATOR
    exif[Base.Model] = model.encode("ascii", "replace").decode("ascii")
    exif.get_ifd(IFD.Exif)[Base.UserComment] = b"ASCII\0\0\0" + description.encode("ascii")
    return {"exif": exif, "xmp": xmp.encode("utf-8")}


def _plain(text: str) -> str:
    """Return a text without what XML cannot hold, and cut where metadata segments end."""
    return _NOT_IN_XML.sub("\ufffd", text)[:MAX_TEXT_CHARACTERS]


@dataclass(frozen=True)
class DrawnRequest:
    request: GenerationRequest
    shape: Shape
    seeds: tuple[int, ...]
    pictures: tuple[Picture, ...]
    model: str
    queue_s: float
    render_s: float
    notary: Notary | None = None
    """Signs the files; None: nothing does."""
    watermark: bool = False

    @property
    def told(self) -> str:
        """How many pictures were flagged, or that none was checked, and how many prompts cut: for a header."""
        counts = sum(one.truncated for one in self.pictures), sum(one.negative_truncated for one in self.pictures)
        flags = [picture.flagged for picture in self.pictures if picture.flagged is not None]
        return "flagged={};truncated={};negative_truncated={}".format(sum(flags) if flags else "unchecked", *counts)

    def file(self, index: int, form: PictureFormat) -> bytes:
        """Return a picture as a file that says where it comes from."""
        provenance = _provenance(form, self.model, self._settings(index))
        drawn, file = self.pictures[index].image, io.BytesIO()
        image = mark(drawn) if self.watermark else drawn
        image.save(file, form.upper(), **OPTIONS[form], **provenance)
        if self.notary is None:
            return file.getvalue()
        generation = {
            "seed": self.seeds[index],
            "prompt_sha256": digest(self.request.texts[index]),
            "negative_prompt_sha256": digest(self.request.negative_prompt),
            "settings": {name: text for name, text in self._settings(index).items() if "rompt" not in name},
            "watermark": image is not drawn,
        }
        return self.notary.sign(file.getvalue(), form, self.model, generation)

    def json(self, form: PictureFormat, request_id: str) -> bytes:
        settings = self.request.model_dump(include=set(GenerationSettings.model_fields))
        response = schema.GenerationResponse(
            request_id=request_id,
            images=tuple(self._entry(index, form) for index in range(len(self.pictures))),
            model=self.model,
            settings=GenerationSettings.model_validate(settings | {"adapter_scale": self.shape.adapter_scale}),
            queue_s=round(self.queue_s, 4),
            render_s=round(self.render_s, 4),
        )
        return response.model_dump_json().encode("utf-8")

    def _entry(self, index: int, form: PictureFormat) -> schema.GeneratedPicture:
        picture = self.pictures[index]
        return schema.GeneratedPicture(
            image=base64.b64encode(self.file(index, form)).decode("ascii"),
            format=form,
            width=self.shape.width_px,
            height=self.shape.height_px,
            seed=self.seeds[index],
            prompt_index=index // self.request.num_images,
            flagged=picture.flagged,
            truncated=picture.truncated,
            negative_truncated=picture.negative_truncated,
        )

    def _settings(self, index: int) -> dict[str, str]:
        settings = {
            "Seed": str(self.seeds[index]),
            "Steps": str(self.shape.steps),
            "Guidance scale": str(self.shape.guidance_scale),
            "Sampler": self.shape.sampler,
        }
        if self.shape.adapter:
            settings |= {"Adapter": self.shape.adapter, "Adapter scale": str(self.shape.adapter_scale)}
        settings |= {"Long prompts": "True"} if self.shape.long_prompts else {}
        if self.request.embed_prompt:
            settings |= {"Prompt": self.request.texts[index], "Negative prompt": self.request.negative_prompt}
        return settings
