"""Draws the data set and lists it: a folder of pictures for the web, and a url table as LAION has them.

    python -m shapes render --folder DIR --table FILE.parquet --base-url http://127.0.0.1:PORT [--rows 4000] [--seed 0]
        [--max-aspect-ratio 1.0]
    python -m shapes new-shape --folder DIR

Reads nothing but what it wrote before; writes DIR/pictures and the folders of the faults that need files, the table
(url, caption, width, height, similarity, punsafe, pwatermark, aesthetic), and last, beside the table, faults.json: how
many rows meet each fault. Run again, it does only what is missing.
"""

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from tqdm import tqdm

from params.files import write_bytes, write_json, write_text
from shapes import captions, faults, pictures
from shapes.captions import Caption

FAULTS_FILE: Final = "faults.json"
MIN_ROWS: Final = 16
MAX_ROWS: Final = 4000
SMALL_SIZE_PX: Final = 24
MAX_ASPECT_RATIO: Final = 4.0
# Every fifth picture is a PNG. The JPEGs keep their colours at full resolution: flat colours bleed otherwise.
PNG_EVERY: Final = 5
JPEG_QUALITY: Final = 92


@dataclass(frozen=True)
class UrlRow:
    """One row of the table before its addresses: a picture's number in the grid, and the part of the web it is in."""

    part: str
    number: int


@dataclass(frozen=True)
class Request:
    folder: Path
    table: Path
    base_url: str
    rows: int = MAX_ROWS
    seed: int = 0
    max_aspect_ratio: float = 1.0
    """Above 1, pictures are in turns square, wide and tall, with this ratio of sides."""

    def __post_init__(self) -> None:
        """Refuse a number of rows that the grid of captions cannot fill, and pictures that are all edge."""
        if not MIN_ROWS <= self.rows <= MAX_ROWS:
            raise ValueError(f"rows: {self.rows} is not between {MIN_ROWS} and {MAX_ROWS}, which 3,920 captions fill")
        if not 1 <= self.max_aspect_ratio <= MAX_ASPECT_RATIO:
            raise ValueError(f"max_aspect_ratio: {self.max_aspect_ratio} is not between 1 and {MAX_ASPECT_RATIO}")

    def aspect(self, row: UrlRow) -> float:
        """Return the width by the height of a row's picture."""
        return (1.0, self.max_aspect_ratio, 1 / self.max_aspect_ratio)[row.number % 3]

    def path_of(self, row: UrlRow) -> Path:
        """Return where a picture lies."""
        return self.folder / row.part / self.name_of(row)

    def name_of(self, row: UrlRow) -> str:
        """Return a picture's name, which holds the renderer's version and the shape: a new look is drawn anew."""
        shape = f"a{round(100 * self.aspect(row))}" if self.max_aspect_ratio > 1 else ""
        return f"{row.number:05d}v{pictures.VERSION}{shape}{_suffix(row.number)}"


def command(base_url: str, **flags: Any) -> None:
    """Render, and say whether there was anything to do."""
    request = Request(base_url=base_url.rstrip("/"), **flags)
    changed = render(request)
    print(f"{'wrote' if changed else 'complete already:'} {request.table} ({request.rows} rows)")


def render(request: Request) -> bool:
    """Make the folder and the table complete; return whether anything was missing."""
    faults_file = request.table.with_name(FAULTS_FILE)
    rows = plan(request.rows, request.seed)
    missing = [row for row in files_of(rows) if not request.path_of(row).exists()]
    record = _record(request, rows)
    former = json.loads(faults_file.read_text()) if faults_file.exists() else None
    if not missing and request.table.exists() and former == record:
        return False
    grid = captions.every()
    for row in tqdm(missing, desc="pictures", unit="picture", disable=None):
        write_bytes(request.path_of(row), picture_bytes(row, grid[row.number], request.aspect(row)))
    write_bytes(request.table, _table(request, rows, grid))
    write_json(faults_file, record)
    return True


def render_new_shape(folder: Path) -> int:
    """Write pictures of the shape that no table has, each with its caption beside it; return how many."""
    grid = captions.every((captions.NEW_SHAPE,))
    for number, caption in enumerate(grid):
        picture = folder / f"{number:03d}.png"
        write_bytes(picture, picture_bytes(UrlRow(faults.PICTURES, 0), caption))
        write_text(picture.with_suffix(".txt"), caption.text())
    print(f"wrote {len(grid)} pictures into {folder}")
    return len(grid)


def plan(rows: int, seed: int) -> list[UrlRow]:
    """Return the rows in the table's order.

    Rows that end as samples have a caption each of their own, except for the copies; the copies and the rows that are
    lost repeat captions, as the web does, so that 4,000 rows hold all 3,920 captions.
    """
    numbers = np.random.default_rng(seed)
    counts = faults.counts(rows)
    repeated = [f.name for f in faults.FAULTS if f.name == "copy" or not f.kept for _ in range(counts[f.name])]
    own = [f.name for f in faults.FAULTS if f.name != "copy" and f.kept for _ in range(counts[f.name])]
    own += [faults.PICTURES] * (rows - len(own) - len(repeated))
    chosen = numbers.permutation(len(captions.every()))[: len(own)].tolist()
    # Copies need a first: they repeat plain rows only, which come last.
    again = numbers.permutation(chosen[-own.count(faults.PICTURES) :])
    cycled = np.resize(again, len(repeated)).tolist()
    planned = [UrlRow(*pair) for pair in zip(own + repeated, chosen + cycled, strict=True)]
    return [planned[i] for i in numbers.permutation(rows)]


def files_of(rows: list[UrlRow]) -> list[UrlRow]:
    """Return the rows as the files behind them, each once: most faults share the plain picture."""
    own = {fault.name for fault in faults.FAULTS if fault.has_files}
    return list(dict.fromkeys(UrlRow(row.part if row.part in own else faults.PICTURES, row.number) for row in rows))


def picture_bytes(row: UrlRow, caption: Caption, aspect: float = 1.0) -> bytes:
    """Return a picture's file: JPEG or PNG by its number; for a corrupt one, bytes that only begin as a JPEG."""
    if row.part == "corrupt":
        return b"\xff\xd8\xff\xe0\x00\x10JFIF\x00" + np.random.default_rng(row.number).bytes(2000)
    image = Image.fromarray(pictures.draw(caption, _size_px(row), aspect))
    body = io.BytesIO()
    if _suffix(row.number) == ".png":
        image.save(body, "PNG", compress_level=4)
    else:
        image.save(body, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return body.getvalue()


def _suffix(number: int) -> str:
    return ".png" if number % PNG_EVERY == 0 else ".jpg"


def _size_px(row: UrlRow) -> int:
    return SMALL_SIZE_PX if row.part == "small" else pictures.WEB_SIZE_PX


def _table(request: Request, rows: list[UrlRow], grid: list[Caption]) -> bytes:
    """Return the parquet file. The scores follow the shape of LAION's, and depend on the seed alone."""
    numbers = np.random.default_rng([request.seed, 1])
    count = len(rows)
    sizes = np.array([pictures.size_of(_size_px(row), request.aspect(row)) for row in rows], np.int32)
    columns: dict[str, Any] = {
        "url": [f"{request.base_url}/{row.part}/{request.name_of(row)}" for row in rows],
        "caption": [grid[row.number].text() for row in rows],
        "width": sizes[:, 0],
        "height": sizes[:, 1],
        "similarity": numbers.normal(0.32, 0.025, count).clip(0.28, 0.5).astype(np.float32),
        "punsafe": numbers.beta(1.0, 30.0, count).astype(np.float32),
        "pwatermark": numbers.beta(1.0, 5.0, count).astype(np.float32),
        "aesthetic": numbers.normal(5.5, 0.6, count).clip(1.0, 10.0).astype(np.float32),
    }
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue()


def _record(request: Request, rows: list[UrlRow]) -> dict[str, Any]:
    """Return what faults.json says: the request, the rows that meet each fault, and how many should become samples."""
    counted: dict[str, dict[str, Any]] = {
        f.name: {"rows": sum(row.part == f.name for row in rows), "kept": f.kept, "meaning": f.meaning}
        for f in faults.FAULTS
    }
    lost = sum(fault["rows"] for fault in counted.values() if not fault["kept"])
    return {
        "version": pictures.VERSION,
        "base_url": request.base_url,
        "seed": request.seed,
        "max_aspect_ratio": request.max_aspect_ratio,
        "rows": len(rows),
        "kept_rows": len(rows) - lost,
        "distinct_kept_rows": len(rows) - lost - counted["copy"]["rows"],
        "faults": counted,
    }
