"""What becomes of the rows of a table before anything is fetched."""

from pathlib import Path
from typing import Any

from params.programs import DownloadSettings
from steps.data.collecting.screening import screen
from steps.data.tables.url_table import UrlTable


def open_table(path: Path, source: str = "urls", **settings: Any) -> UrlTable:
    """Open a table as Download does."""
    return UrlTable(str(path), DownloadSettings.model_validate({"source": source, **settings}))


def fates(path: Path, source: str = "urls", **settings: Any) -> list[Any]:
    """Return for each row its caption, or `#` and the cause by which it is not fetched."""
    table = open_table(path, source, **settings)
    screening = screen(table, DownloadSettings.model_validate({"source": source, **settings}))
    fates: list[Any] = []
    for part in table.shards(7):
        left_out = ~screening.is_wanted[part.first_row : part.first_row + len(part.urls)]
        fates += [
            f"#{screening.cause(row)}" if out else caption
            for row, out, caption in zip(range(part.first_row, table.rows), left_out, part.captions, strict=False)
        ]
    assert len(fates) == table.rows
    return fates
