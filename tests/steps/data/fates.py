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
        numbers = screening.fates[part.first_row : part.first_row + len(part.urls)].tolist()
        fates += [
            f"#{screening.causes[number - 1]}" if number else caption
            for number, caption in zip(numbers, part.captions, strict=True)
        ]
    assert len(fates) == table.rows
    return fates
