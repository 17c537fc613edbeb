"""What pages are made from: one set of rules for the templates of every room, and the style of the run's page.

Reads the *.html of a room and of the run's page; writes nothing.
"""

from __future__ import annotations

import functools
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

STYLE_FOLDER = Path(__file__).parent


@functools.cache
def templates(folder: Path) -> Environment:
    """Return the templates of a folder, which may include those of the run's page; every text is escaped."""
    return Environment(
        loader=FileSystemLoader((folder, STYLE_FOLDER)),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
