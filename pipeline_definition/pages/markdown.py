"""A document as Markdown: its facts and tables, and where its charts are. Reads nothing, writes nothing."""

from pipeline_definition.pages.document import Document, Table


def to_markdown(document: Document, chart_page: str) -> str:
    """Return the same facts and tables as Markdown; `chart_page` is the file that has the charts."""
    parts = [f"# {plain(document.title)}", plain(document.lead)]
    for section in document.sections:
        facts = []
        for fact in section.facts:
            note = f" ({plain(fact.note)})" if fact.note else ""
            facts.append(f"- {plain(fact.label)}: **{plain(fact.value)}**{note}")
        parts += [f"## {plain(section.title)}", plain(section.lead), "\n".join(facts)]
        parts += [_table(table) for table in section.tables if table.rows]
        parts += [f"Chart: {plain(chart.title)} ([page]({chart_page}))." for chart in section.charts]
    return "\n\n".join(part for part in parts if part) + "\n"


def _table(table: Table) -> str:
    rules = " | ".join("---:" if column in table.numeric else "---" for column in range(len(table.headers)))
    cells = (" | ".join(plain(cell).replace("|", "\\|") for cell in row) for row in (table.headers, *table.rows))
    headers, *rows = (f"| {line} |" for line in cells)
    return "\n".join((headers, f"| {rules} |", *rows))


def plain(text: str) -> str:
    """Return a text that stays itself in Markdown, on one line and without HTML."""
    return " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace("*", "\\*")
