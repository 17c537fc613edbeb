"""Where a picture comes from, written into the picture: made by a model, by which one, from which seed.

PNG carries text chunks, JPEG and WebP carry EXIF, all three an XMP packet whose DigitalSourceType is the IPTC's term
for pictures made by a trained model (https://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia).
Nothing in it depends on the time of day: the same request gives the same bytes.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Final
from xml.sax.saxutils import escape

from PIL.Image import Exif
from PIL.PngImagePlugin import PngInfo

GENERATOR: Final = "sd-pipeline"
SOURCE_TYPE: Final = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
# Segments of a JPEG end at 64 KiB, and a character takes up to 12 bytes in ASCII JSON.
MAX_TEXT_CHARACTERS: Final = 2000
_NOT_IN_XML: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_EXIF_SOFTWARE: Final = 0x0131
_EXIF_MODEL: Final = 0x0110
_EXIF_IFD: Final = 0x8769
_EXIF_USER_COMMENT: Final = 0x9286
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


@dataclass(frozen=True)
class Provenance:
    """What a picture says about itself."""

    model: str
    settings: dict[str, str]
    """Seed, steps and so on, and the prompt only where it was asked for."""

    def png_text(self) -> PngInfo:
        """Return the text chunks of a PNG."""
        info = PngInfo()
        info.add_itxt("XML:com.adobe.xmp", self.xmp().decode("utf-8"))
        info.add_text("Software", GENERATOR)
        for name, text in {"Model": self.model, **self.settings}.items():
            info.add_itxt(name, _plain(text))
        return info

    def exif(self) -> Exif:
        """Return the EXIF block of a JPEG or WebP."""
        exif = Exif()
        exif[_EXIF_SOFTWARE] = GENERATOR
        exif[_EXIF_MODEL] = self.model.encode("ascii", "replace").decode("ascii")
        exif.get_ifd(_EXIF_IFD)[_EXIF_USER_COMMENT] = b"ASCII\0\0\0" + self._description().encode("ascii")
        return exif

    def xmp(self) -> bytes:
        """Return the XMP packet."""
        values = {"model": self.model, "description": self._description()}
        texts = {name: escape(_plain(value)) for name, value in values.items()}
        return _XMP.format(generator=GENERATOR, source_type=SOURCE_TYPE, **texts).encode("utf-8")

    def _description(self) -> str:
        return json.dumps({name: _plain(text) for name, text in self.settings.items()})


def _plain(text: str) -> str:
    """Return a text without what XML cannot hold, and cut where metadata segments end."""
    return _NOT_IN_XML.sub("\ufffd", text)[:MAX_TEXT_CHARACTERS]
