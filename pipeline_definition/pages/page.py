"""What the page is made of: facts, charts and tables, in sections."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup


@dataclass(frozen=True)
class Fact:
    """A figure with its name."""

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Chart:
    """A drawing with its title and the names of its lines."""

    title: str
    svg: Markup
    keys: tuple[str, ...] = ()
    """Names of the series, in the order of their colours; none where there is one."""


@dataclass(frozen=True)
class Table:
    """Rows of text under headers; `numeric` columns are aligned to the right."""

    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: frozenset[int] = frozenset()
    summary: str = ""
    """Where it is long: what to press to see it."""
    wraps: bool = False
    """Whether long words, such as addresses, may break anywhere."""


@dataclass(frozen=True)
class Section:
    """One question that the page answers."""

    anchor: str
    title: str
    lead: str = ""
    facts: tuple[Fact, ...] = ()
    charts: tuple[Chart, ...] = ()
    tables: tuple[Table, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to show."""
        return not (self.facts or self.charts or self.tables)
