"""What a page is made of: facts, charts, pictures and tables, in sections. Reads nothing, writes nothing."""

import base64
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from pipeline_definition.pages.formats import number


@dataclass(frozen=True)
class Fact:
    label: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Chart:
    title: str
    svg: Markup
    keys: tuple[str, ...] = ()
    """Names of the series, in the order of their colours; none where there is one."""


@dataclass(frozen=True)
class EmbeddedPicture:
    """A picture inside the page, so that the page needs no other file."""

    source: str
    """data: address."""
    alt: str
    """What it shows, for people who cannot see it."""
    title: str = ""
    caption: str = ""
    is_best: bool = False
    second: str = ""
    """Another caption, which a model wrote: it stands beside the first."""


@dataclass(frozen=True)
class Table:
    """Rows of text under headers; `numeric` columns are aligned to the right."""

    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: frozenset[int] = frozenset()
    summary: str = ""
    """For a long table: it is folded under this line."""
    wraps: bool = False
    """Whether long words, such as addresses, may break anywhere."""


@dataclass(frozen=True)
class Section:
    anchor: str
    title: str
    lead: str = ""
    facts: tuple[Fact, ...] = ()
    charts: tuple[Chart, ...] = ()
    tables: tuple[Table, ...] = ()
    """One without rows is not shown."""
    pictures: tuple[EmbeddedPicture, ...] = ()
    sheet: EmbeddedPicture | None = None
    """A contact sheet: one picture over the whole width."""
    is_wide: bool = False
    """Whether it takes the page's whole width, with the title above instead of at the side."""

    @property
    def is_empty(self) -> bool:
        tables = any(table.rows for table in self.tables)
        return not (self.facts or self.charts or tables or self.pictures or self.sheet)


@dataclass(frozen=True)
class Document:
    eyebrow: tuple[str, ...]
    """Small print above the title."""
    title: str
    lead: str
    sections: tuple[Section, ...]
    notes: tuple[str, ...] = ()
    """Small print at the foot."""


def known_facts(
    source: Mapping[str, Any], labels: Mapping[str, str], form: Callable[[float], str], note: str = ""
) -> Iterator[Fact]:
    """Yield a figure under each label whose key holds a number."""
    for key, label in labels.items():
        value = number(source.get(key))
        if value is not None:
            yield Fact(label, form(value), note)


def data_address(content: bytes, form: str = "png") -> str:
    """Return a picture's bytes as a data: address (RFC 2397); `form` is its image subtype."""
    return f"data:image/{form};base64,{base64.b64encode(content).decode('ascii')}"
