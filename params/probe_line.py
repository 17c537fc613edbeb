"""One line of the probe: what a host measured, as the job writes it and `sd-pipeline probe` reads it.

Reads nothing, writes nothing.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import Any, Final, Self

GOOD: Final = "good"
NOTE: Final = "note"
FAILED: Final = "failed"


@dataclass(frozen=True)
class ProbeLine:
    """One check."""

    check: str
    """Its name, such as driver; docs/operations.md lists them."""
    subject: str
    """What was looked at, such as an address in S3; empty where there is one of the kind."""
    status: str
    """good, note (worth knowing, nothing fails of it) or failed."""
    text: str
    """What was measured, or what is wrong."""
    fix: str = ""

    @classmethod
    def of(cls, value: Any) -> Self:
        """Return the line of a JSON object. Raises ValueError where it is none."""
        names = {field.name for field in fields(cls)}
        if not isinstance(value, dict) or set(value) != names:
            raise ValueError(f"not a line of the probe: {str(value)[:200]}")
        return cls(**{name: str(text) for name, text in value.items()})

    def as_json(self) -> str:
        """Return the line as JSON."""
        return json.dumps(asdict(self))

    def as_text(self) -> str:
        """Return the line for people, without its fix."""
        return f"{self.check:12} {self.status:7} {self.subject + ': ' if self.subject else ''}{self.text}"
