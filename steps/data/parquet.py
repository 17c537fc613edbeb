"""Small parquet files that lie in memory."""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq


def read_parquet(content: bytes, columns: Sequence[str] | None = None) -> Any:
    """Return the pyarrow.Table of a parquet file, or some of its columns. Raises pyarrow.ArrowInvalid for what is none.

    In this thread alone: `read_table` leaves the last reference to a Python file to threads of its own, and one that
    lets go of it while the interpreter ends takes the whole process down with SIGABRT.
    """
    names = None if columns is None else list(columns)
    return pq.ParquetFile(pa.BufferReader(content)).read(columns=names, use_threads=False)
