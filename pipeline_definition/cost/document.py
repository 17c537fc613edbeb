"""Sections of facts, charts and tables as a self-contained HTML page, and as Markdown.

Reads page.html and the style of the run's page; writes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipeline_definition.pages.page import Section, Table
from pipeline_definition.pages.templates import templates


@dataclass(frozen=True)
class Document:
    """A page."""

    eyebrow: str
    title: str
    lead: str
    sections: tuple[Section, ...]


def to_html(document: Document) -> str:
    """Return one HTML file that needs no other file and no network; every text is escaped."""
    return templates(Path(__file__).parent).get_template("cost_page.html").render(document=document)


def to_markdown(document: Document, chart_page: str) -> str:
    """Return the same facts and tables as Markdown; `chart_page` is the file that has the charts."""
    parts = [f"# {_plain(document.title)}", _plain(document.lead)]
    for section in document.sections:
        parts += [f"## {_plain(section.title)}", _plain(section.lead)]
        if section.facts:
            parts.append("\n".join(_fact(fact.label, fact.value, fact.note) for fact in section.facts))
        parts += [_table(table) for table in section.tables]
        parts += [f"Chart: {_plain(chart.title)} ([page]({chart_page}))." for chart in section.charts]
    return "\n\n".join(part for part in parts if part) + "\n"


def _fact(label: str, value: str, note: str) -> str:
    return f"- {_plain(label)}: **{_plain(value)}**" + (f" ({_plain(note)})" if note else "")


def _table(table: Table) -> str:
    rules = ["---:" if column in table.numeric else "---" for column in range(len(table.headers))]
    rows = [table.headers, tuple(rules), *table.rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in row) + " |" for row in rows)


def _cell(text: str) -> str:
    return text if set(text) <= set("-:") else _plain(text).replace("|", "\\|")


def _plain(text: str) -> str:
    """Return a text that stays itself in Markdown, on one line and without HTML."""
    return " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace("*", "\\*")
