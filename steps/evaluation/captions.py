"""What an evaluation draws: the held-out captions of the reference, or those of any caption file, each with a seed.

Reads a .txt (one caption per line), .csv, .tsv, .jsonl, .json (COCO's `annotations`, or a list) or .parquet file
through fsspec, such as the 30,000 COCO captions that MLPerf Training judges with. A column `seed` gives the seeds.
"""

import csv
import hashlib
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Final

import numpy as np

from params.layout import HELDOUT_CAPTIONS
from steps.data.parquet import read_parquet
from steps.data.storage import Storage
from steps.errors import StepError

CAPTION_COLUMN: Final = "caption"
SEED_COLUMN: Final = "seed"
DELIMITERS: Final = {".csv": ",", ".tsv": "\t"}
SUFFIXES: Final = (".txt", *DELIMITERS, ".jsonl", ".json", ".parquet")
# torch's CPU generator uses the low 32 bits of its seed.
SEEDS: Final = 2**32

MIN_SAMPLES: Final = 8
_HELD_OUT: Final = ("reference: {} held-out captions", "raise encode.heldout_fraction or max_heldout_samples")
_FROM_A_FILE: Final = ("captions: {} in the file", "take a longer one")


@dataclass(frozen=True)
class Captions:
    texts: Sequence[str]
    real_rows: Sequence[int | None]
    """For each, the row of the reference whose picture has this caption, if any."""
    seeds: Sequence[int] | None = None
    """The seed that the file gives for each, if it has that column."""
    is_heldout: bool = False
    """Whether they are the reference's own."""

    @property
    def digest(self) -> str:
        return hashlib.sha256(json.dumps([list(self.texts), self.seeds]).encode()).hexdigest()


def read_captions(source: str, heldout: Sequence[str]) -> Captions:
    """Return a file's captions, or for `heldout` the held-out ones. Raises StepError naming the file and its fault."""
    if source == HELDOUT_CAPTIONS:
        return Captions(heldout, range(len(heldout)), is_heldout=True)
    suffix = PurePosixPath(source).suffix.lower()
    if suffix not in SUFFIXES:
        raise StepError(f"captions: {source} must end in one of {', '.join(SUFFIXES)}, or be {HELDOUT_CAPTIONS!r}")
    folder, _, name = source.rpartition("/")
    try:
        rows = list(_rows(suffix, Storage(folder or ".").read(name)))
        texts = [" ".join(str(row[CAPTION_COLUMN]).split()) for row in rows]
        seeds = [_seed(row[SEED_COLUMN]) for row in rows] if rows and SEED_COLUMN in rows[0] else None
    except KeyError as error:
        raise StepError(f"captions: {source} has no {error.args[0]!r} in some row") from None
    except (OSError, ValueError, TypeError, RecursionError, csv.Error) as error:
        raise StepError(f"captions: {source} cannot be read: {str(error) or type(error).__name__}") from None
    empty = next((number for number, text in enumerate(texts) if not text), None)
    if empty is not None:
        raise StepError(f"captions: {source}: caption {empty} is empty")
    rows_of = {" ".join(caption.split()): row for row, caption in reversed(list(enumerate(heldout)))}
    return Captions(texts, [rows_of.get(text) for text in texts], seeds)


def _rows(suffix: str, content: bytes) -> Iterable[Mapping[str, Any]]:
    if suffix == ".parquet":
        table: list[dict[str, Any]] = read_parquet(content).to_pylist()
        return table
    text = content.decode("utf-8-sig")
    if suffix == ".txt":
        return [{CAPTION_COLUMN: line} for line in text.splitlines() if line.strip()]
    if suffix == ".jsonl":
        return [json.loads(line) for line in text.splitlines() if line.strip()]
    if suffix == ".json":
        value = json.loads(text)
        annotations: list[Any] = value["annotations"] if isinstance(value, dict) else value
        return [row if isinstance(row, dict) else {CAPTION_COLUMN: row} for row in annotations]
    return csv.DictReader(io.StringIO(text, newline=""), delimiter=DELIMITERS[suffix])


def _seed(value: Any) -> int:
    seed = int(value)
    if not 0 <= seed < SEEDS:
        raise ValueError(f"seed {seed} is not in 0..{SEEDS - 1}")
    return seed


@dataclass(frozen=True)
class Prompt:
    index: int
    caption: str
    seed: int
    """Seed of its initial noise: the same seed gives the same picture in any batch."""
    reference_row: int | None
    """Row of the reference with this caption's real picture, if any."""


def choose_prompts(captions: Captions, samples: int, seed: int) -> list[Prompt]:
    """Draw `samples` of the captions, without repetition; all of them where there are fewer.

    The seed decides the order, so that a smaller sample is the beginning of a larger one, and a sorted table does not
    bias the sample. Raises StepError if there are too few captions for a meaningful distance.
    """
    count = len(captions.texts)
    fewest = min(samples, MIN_SAMPLES)
    if count < fewest:
        source, fix = _HELD_OUT if captions.is_heldout else _FROM_A_FILE
        raise StepError(f"{source.format(count)}, at least {fewest} are needed; {fix}")
    rows = np.random.default_rng(seed).permutation(count)[:samples].tolist()
    seeds = captions.seeds
    return [
        Prompt(index, captions.texts[row], seeds[row] if seeds else picture_seed(seed, index), captions.real_rows[row])
        for index, row in enumerate(rows)
    ]


def picture_seed(seed: int, index: int) -> int:
    """Return the seed of picture `index`: distinct for all indices, and in another range for another `seed`."""
    start = int.from_bytes(hashlib.sha256(str(seed).encode()).digest()[:4], "big")
    return (start + index) % SEEDS


def batches(prompts: Sequence[Prompt], batch_size: int, rank: int = 0, world_size: int = 1) -> Iterator[list[Prompt]]:
    """Yield the batches of one worker: every `world_size`-th one, so their content is the same for any number."""
    for start in range(rank * batch_size, len(prompts), world_size * batch_size):
        yield list(prompts[start : start + batch_size])
