"""What the model draws: the contact sheet and some pictures with their captions, carried inside the page."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline_definition.artifacts import Artifacts
from pipeline_definition.pages.data_address import data_address

# The page is to be sent around: a mail takes 10 MB, and base64 makes a third more of every byte.
MAX_SHEET_BYTES = 4 * 2**20
MAX_GALLERY_BYTES = 2 * 2**20
MAX_GALLERY_PICTURES = 6
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class EmbeddedPicture:
    """One picture inside the page."""

    source: str
    """data: address."""
    caption: str
    note: str = ""


def contact_sheet(artifacts: Artifacts) -> EmbeddedPicture | None:
    """Return the contact sheet, or None where there is none or it is too large to be sent around."""
    if artifacts.contact_sheet is None:
        return None
    source = _inline(artifacts.contact_sheet, MAX_SHEET_BYTES)
    return (
        EmbeddedPicture(source, "Contact sheet: each prompt with the real picture and the model’s") if source else None
    )


def gallery(artifacts: Artifacts) -> tuple[EmbeddedPicture, ...]:
    """Return the first pictures with their captions, as many as fit."""
    captions = {Path(str(entry.get("file", ""))).name: entry for entry in artifacts.captions}
    return tuple(
        EmbeddedPicture(
            source, str(captions.get(path.name, {}).get("caption") or ""), _seed(captions.get(path.name, {}))
        )
        for path, source in _fitting(artifacts.samples)
    )


def _fitting(paths: tuple[Path, ...]) -> Iterator[tuple[Path, str]]:
    left = MAX_GALLERY_BYTES
    for path in paths[:MAX_GALLERY_PICTURES]:
        source = _inline(path, left)
        if source:
            left -= path.stat().st_size
            yield path, source


def _seed(entry: object) -> str:
    return f"seed {entry['seed']}" if isinstance(entry, dict) and "seed" in entry else ""


def _inline(path: Path, max_bytes: int) -> str | None:
    """Return a PNG as a data: address; what is no PNG is not shown."""
    if path.stat().st_size > max_bytes:
        return None
    content = path.read_bytes()
    if not content.startswith(PNG_SIGNATURE):
        return None
    return data_address(content)
