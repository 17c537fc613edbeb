import io
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from steps.data.parquet import read_parquet

TABLE = pa.table({"key": ["a", "b"], "start": [0, 512]})
THREADS = """
import sys
import psutil
from steps.data.parquet import read_parquet
content = sys.stdin.buffer.read()
before = psutil.Process().num_threads()
read_parquet(content)
print(psutil.Process().num_threads() - before)
"""


def content_of(table: pa.Table) -> bytes:
    stream = io.BytesIO()
    pq.write_table(table, stream)
    return stream.getvalue()


def test_a_table_comes_back_whole_or_in_the_columns_asked_for() -> None:
    content = content_of(TABLE)
    assert read_parquet(content).equals(TABLE)
    assert read_parquet(content, ["start"]).equals(TABLE.select(["start"]))


def test_what_is_no_parquet_is_told() -> None:
    with pytest.raises(pa.ArrowInvalid):
        read_parquet(b"no parquet at all")


def test_no_thread_is_left_that_could_hold_the_file_when_the_program_ends() -> None:
    done = subprocess.run([sys.executable, "-c", THREADS], input=content_of(TABLE), capture_output=True, check=True)
    assert done.stdout.split() == [b"0"]
