"""Tells where a picture comes from: its C2PA manifest, whether that holds, and its invisible watermark.

    python -m steps inspect --file picture.png

Reads a PNG, JPEG or WebP, which may be hostile; writes JSON to standard output.
"""

import io
import json
import warnings
from pathlib import Path

from PIL import Image

from params.arguments import parse
from params.programs import InspectArguments
from steps.errors import StepError
from steps.serving.encoding import OPTIONS
from steps.serving.notary import read_manifest
from steps.serving.watermark import LEAST_BITS, MARK, bits_found


def main(argv: list[str]) -> int:
    """Run the program; return its exit status."""
    file = parse(InspectArguments, argv, "inspect").file
    try:
        content = Path(file).read_bytes()
        with warnings.catch_warnings(action="error"), Image.open(io.BytesIO(content), formats=tuple(OPTIONS)) as image:
            image.load()
            found, form = bits_found(image), str(image.format).lower()
    except (OSError, ValueError, Warning, Image.DecompressionBombError) as error:
        raise StepError(f"{file}: no picture in PNG, JPEG or WebP: {error}") from None
    watermark = {"found": found >= LEAST_BITS, "bits": found, "of": len(MARK)}
    print(json.dumps({"format": form, "manifest": read_manifest(content, form), "watermark": watermark}))
    return 0
