"""Disk of a Download's first host for its passes over the whole table (steps/data/collecting/parts.py).

Reads nothing, writes nothing. Preflight compares it with the volume, the step itself with what is free.
"""

from typing import Final

ROW_BYTES: Final = 65
"""As screened (25), its fate in the shards (20), how it stands (9), its sample (9), and two single bytes."""
LOOK_BYTES: Final = 46
"""Of a sample while copies are looked for; by look: of all, of those that differ, and of these by some bits."""


def spilled_bytes(rows: int, dedup: str) -> int:
    """Return the most that temporary files take, where every row becomes a sample."""
    return rows * (ROW_BYTES + LOOK_BYTES * (3 if dedup == "perceptual" else 1))
