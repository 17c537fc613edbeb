"""Which captions are held out: a function of the caption alone, so that whoever plans and whoever encodes agree."""

import hashlib


def caption_hash(caption: str) -> int:
    """Return 64 bits that only the caption decides."""
    return int.from_bytes(hashlib.sha256(caption.encode("utf-8", "surrogatepass")).digest()[:8], "big")


def is_heldout(caption: str, fraction: float) -> bool:
    """Return whether training never sees a caption, whichever picture it stands with."""
    return caption_hash(caption) < fraction * 2.0**64
