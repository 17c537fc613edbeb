"""A block: the rows of one member of a latents shard, as safetensors.

    mean       [rows, C, H, W]              float16   posterior mean of the VAE, unscaled
    std        [rows, C, H, W]              float16   posterior standard deviation, unscaled
    token_ids  [rows, caption length]       int32     the caption's tokens, padded
    written_token_ids [rows, caption length] int32    those of the caption that Recaption wrote; where there are any
    embeddings [rows, caption length, width] float16  the text encoder's output; where it was asked for
    features   [rows, side, side, width]    float16   a vision model's, averaged over cells; where they were asked for

Format: https://huggingface.co/docs/safetensors/index#format (8 bytes of header length, JSON header, tensors).
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import xxhash
from safetensors.numpy import save

Array = npt.NDArray[Any]

SUFFIX: Final = "safetensors"
WRITTEN_TOKEN_IDS: Final = "written_token_ids"
DTYPES: Final[Mapping[str, np.dtype[Any]]] = {"F16": np.dtype("<f2"), "I32": np.dtype("<i4")}
MAX_HEADER_BYTES: Final = 1 << 20


class BlockError(ValueError):
    """The bytes are not a block."""


@dataclass(frozen=True)
class Field:
    """One tensor of a block."""

    name: str
    dtype: np.dtype[Any]
    row_shape: tuple[int, ...]

    @property
    def row_bytes(self) -> int:
        return self.dtype.itemsize * math.prod(self.row_shape)


@dataclass(frozen=True)
class BlockLayout:
    """What a block's header says: the tensors in the order in which their bytes follow it."""

    header: bytes
    rows: int
    fields: tuple[Field, ...]


def to_bytes(tensors: Mapping[str, Array]) -> bytes:
    """Return a block; the same tensors give the same bytes."""
    return bytes(save({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}))


def digest(content: bytes | bytearray | memoryview) -> str:
    """Return the xxh3 (64 bits, hexadecimal) of a block's bytes."""
    return str(xxhash.xxh3_64_hexdigest(content))


def parse_layout(content: bytes) -> BlockLayout:
    """Return the layout of a block from its first bytes (the header at least).

    Raises BlockError where they are no safetensors header, or one of tensors without gaps that share their row count.
    """
    length = int.from_bytes(content[:8], "little")
    if not 2 <= length <= min(MAX_HEADER_BYTES, len(content) - 8):
        raise BlockError("not a safetensors header")
    try:
        header = json.loads(content[8 : 8 + length])
        header.pop("__metadata__", None)
        entries = sorted(header.items(), key=lambda item: int(item[1]["data_offsets"][0]))
        fields = tuple(Field(name, DTYPES[e["dtype"]], tuple(e["shape"][1:])) for name, e in entries)
        rows = {int(e["shape"][0]) for _, e in entries}
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise BlockError(f"not a safetensors header: {error!r}") from None
    if len(rows) != 1:
        raise BlockError("tensors of a block must have the same number of rows")
    return BlockLayout(header=content[: 8 + length], rows=rows.pop(), fields=fields)
