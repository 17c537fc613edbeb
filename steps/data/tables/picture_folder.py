"""A folder of pictures with their captions.

A caption is a picture's line of metadata.jsonl, .csv or .parquet in its folder (`file_name` and `text`, `caption` or
`prompt`, as in https://huggingface.co/docs/datasets/image_dataset#imagefolder), else the .txt or .caption beside it.
What else the metadata say are columns, for the filters.
"""

import json
import posixpath
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from io import BytesIO
from typing import Any, Final

from params.layout import CAPTION_FILES, METADATA_FILES, PICTURES
from params.programs import DownloadSettings
from steps.data.storage import Storage
from steps.data.tables.json_files import read_lines
from steps.data.tables.parquet_files import PictureParquet
from steps.data.tables.row_files import CAPTION, URL, Oddities, open_files
from steps.data.tables.stored_rows import Row, StoredRows, caption_in, facts_of, is_blank, note_if_no_text, stored_names
from steps.data.tables.text_column import through
from steps.errors import StepError

FILE_NAME: Final = "file_name"


def open_folder(uri: str, settings: DownloadSettings) -> PictureParquet | StoredRows:
    """Return the pictures under a folder, by name. Raises StepError where there is none, or none has a caption."""
    storage, sizes = Storage(uri), stored_names(uri)
    pictures = [name for name in sizes if name.lower().endswith(PICTURES)]
    if not pictures:
        tables = [name for name in sizes if name.lower().endswith(".parquet")]
        if tables:
            return PictureParquet(uri, tables, settings)
        raise StepError(f"url_table: no picture ({', '.join(PICTURES)}) and no parquet of pictures under {uri}")
    oddities = Oddities()
    facts = _metadata(storage, sizes, pictures, settings, oddities)
    beside = _caption_files(sizes, [name for name in pictures if is_blank(facts.get(name, {}).get(CAPTION))])
    contents = storage.read_many(sorted({file for files in beside.values() for file in files}))
    rows = []
    for name in pictures:
        row = dict(facts.get(name, {}))
        if name in beside:
            file = next((file for file in beside[name] if contents[file].strip()), beside[name][0])
            row[CAPTION] = caption_in(contents[file], settings)
            note_if_no_text(oddities, f"{uri}/{file}", row[CAPTION])
        rows.append({**row, URL: name})
    where = f"{', '.join(METADATA_FILES)}, nor a .txt or .caption beside it"
    captions = json.dumps([row.get(CAPTION) for row in rows])
    return StoredRows(uri, rows, settings, oddities, where, {name: sizes[name] for name in pictures}, captions)


def _caption_files(names: Mapping[str, Any], pictures: list[str]) -> dict[str, list[str]]:
    """Return the caption files of each picture that has some: of the same name but for the suffix, or with it."""
    files: dict[str, list[str]] = {}
    for suffix in reversed(CAPTION_FILES):
        for name in names:
            if name.lower().endswith(suffix):
                files.setdefault(name.rsplit(".", 1)[0], []).append(name)
    found = {name: files.get(name.rsplit(".", 1)[0]) or files.get(name) for name in pictures}
    return {name: some for name, some in found.items() if some}


def _metadata(
    storage: Storage, names: Mapping[str, Any], pictures: Sequence[str], settings: DownloadSettings, oddities: Oddities
) -> dict[str, Row]:
    """Return what the metadata of every folder say of its pictures; the first line of the first file wins."""
    facts: dict[str, Row] = {}
    written = {unicodedata.normalize("NFC", name): name for name in pictures}
    for kind in METADATA_FILES:
        for file in (name for name in names if name.rsplit("/", 1)[-1] == kind):
            place = f"{storage.uri}/{file}"
            named = 0
            for number, row in enumerate(_rows(storage, file, oddities), 1):
                name = row.pop(FILE_NAME, None) if row else None
                if not isinstance(name, str) or row is None:
                    oddities.leave("metadata_line", f"{place} line {number}: has no {FILE_NAME}")
                    continue
                named += 1
                oddities.keys.update(row)
                picture = _picture_named(name, file[: -len(kind)], written)
                own = facts_of(row, settings)
                if not picture:
                    oddities.leave("no_such_picture", f"{place} line {number}: no picture {name[:200]!r}")
                elif facts.setdefault(picture, own) != own:
                    oddities.leave("further_line", f"{place} line {number}: {name[:200]!r} has a line already")
                note_if_no_text(oddities, f"{place} line {number}", own.get(CAPTION))
            if not named:
                raise StepError(f"url_table: {oddities.examples.get('metadata_line', f'{place} has no lines')}")
    return facts


def _picture_named(name: str, folder: str, written: Mapping[str, str]) -> str | None:
    """Return the picture that metadata mean: other systems write accents and separators in other ways."""
    path = unicodedata.normalize("NFC", folder + name)
    spellings = (path, posixpath.normpath(path), posixpath.normpath(path.replace("\\", "/")))
    return next((written[own] for own in spellings if own in written), None)


def _rows(storage: Storage, file: str, oddities: Oddities) -> Iterator[Row | None]:
    if file.endswith(".jsonl"):
        yield from read_lines(BytesIO(storage.read(file)), file, oddities)
        return
    table = open_files(f"{storage.uri}/{file}", DownloadSettings(url_column=FILE_NAME, caption_column=FILE_NAME))
    repeated = next((name for name in table.names if table.names.count(name) > 1), None)
    if repeated is not None:
        raise StepError(f"url_table: {storage.uri}/{file} has several columns {repeated!r}; rename all but one")
    for batch in table.batches(table.names):
        columns = {name: through(batch.column(name)) for name in table.names}
        values = [column.values.to_pylist() for column in columns.values()]
        for place, cells in enumerate(zip(*values, strict=True)):
            lost = [name for name, column in columns.items() if column.lost[place]]
            # A text that is none stays to be told of, as in JSON Lines.
            yield dict(zip(columns, cells, strict=True)) | dict.fromkeys(lost, "\ud800")
    for kind, example in table.oddities.examples.items():
        oddities.note(kind, example)
