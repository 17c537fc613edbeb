"""A document as one self-contained HTML file, with no need of a network; every text is escaped.

Reads base.html, components.html, graph.html and style.html, and the template of a page that adds parts of its own.
"""

import functools
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from pipeline_definition.pages.document import Document

BASE = Path(__file__).parent / "base.html"


def to_html(document: Document, template: Path = BASE, **parts: Any) -> str:
    """Return the page; another `template` extends base.html and also shows its own `parts`."""
    return fragment(template, document=document, **parts)


def fragment(template: Path, **parts: Any) -> str:
    """Return a piece of a page: what a template makes of its `parts`."""
    return _templates(template.parent).get_template(template.name).render(**parts)


@functools.cache
def _templates(folder: Path) -> Environment:
    return Environment(
        loader=FileSystemLoader((folder, BASE.parent)),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
