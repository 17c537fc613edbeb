"""A document as Markdown: its facts and tables, and where its charts are. Reads nothing, writes nothing."""

from __future__ import annotations

from pipeline_definition.pages.document import Document, Fact, Table


def to_markdown(document: Document, chart_page: str) -> str:
    """Return the same facts and tables as Markdown; `chart_page` is the file that has the charts."""
    parts = [f"# {_plain(document.title)}", _plain(document.lead)]
    for section in document.sections:
        parts += [f"## {_plain(section.title)}", _plain(section.lead)]
        parts.append("\n".join(map(_fact, section.facts)))
        parts += [_table(table) for table in section.tables if table.rows]
        parts += [f"Chart: {_plain(chart.title)} ([page]({chart_page}))." for chart in section.charts]
    return "\n\n".join(part for part in parts if part) + "\n"


def _fact(fact: Fact) -> str:
    return f"- {_plain(fact.label)}: **{_plain(fact.value)}**" + (f" ({_plain(fact.note)})" if fact.note else "")


def _table(table: Table) -> str:
    rules = tuple("---:" if column in table.numeric else "---" for column in range(len(table.headers)))
    rows = [table.headers, rules, *table.rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in row) + " |" for row in rows)


def _cell(text: str) -> str:
    return text if set(text) <= set("-:") else _plain(text).replace("|", "\\|")


def _plain(text: str) -> str:
    """Return a text that stays itself in Markdown, on one line and without HTML."""
    return " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace("*", "\\*")
