"""A url table made to do harm: it costs its own rows, each under a cause, and what is good among them is kept."""

import io
import json
import resource
import subprocess
import tarfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.steps.data import s3_server, web
from tests.steps.test_download import World

# A caption may be anything that parquet can hold.
CAPTIONS = (
    "plain",
    "",
    "x" * 100_000,
    "𝕊𝕥𝕒𝕓𝕝𝕖 🎨 ديفيوجن \u202eright to left\u202c",
    "two\nlines\r\nand a\ttab",
    "a NUL \x00 inside",
    "../../etc/passwd",
    '"}, {"url": "http://169.254.169.254/"',
    "<script>alert(1)</script>",
    "{{ 7 * 7 }} %s %n $(id) `id`",
)
# No text and no caption: such a row is lost, under a cause.
LOST = ("", "a NUL \x00 inside")
PRIVATE = (
    "http://127.0.0.1:1/",
    "http://localhost/",
    "http://169.254.169.254/latest/meta-data/iam/security-credentials/",
    "http://[::1]/",
    "http://[::ffff:127.0.0.1]/",
    "http://2130706433/",
    "http://0x7f000001/",
    "http://10.0.0.1/",
    "http://192.168.1.1/",
)
NO_ADDRESS = (
    None,
    "",
    " ",
    "file:///etc/passwd",
    "data:image/png;base64,AAAA",
    "ftp://example.org/a.jpg",
    "http://",
    "http://[",
    "not an address",
    "javascript:alert(1)",
    "http://" + "a" * 5000 + ".invalid/",
    "gopher://127.0.0.1:6379/_FLUSHALL",
)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "blocklist").write_text("host: blocked.example")
    (folder / "urls").mkdir()
    with web.serving() as site, s3_server.serving() as s3:
        yield World(site, s3, folder)


def write_table(folder: Path, urls: list[str | None], captions: list[str | None]) -> None:
    pq.write_table(pa.table({"url": urls, "caption": captions}), folder / "urls" / "0.parquet")


def test_an_odd_row_costs_itself_and_the_rest_is_kept_to_the_letter(world: World) -> None:
    good: list[str | None] = [f"{world.site.url}/picture/{number}" for number in range(len(CAPTIONS))]
    redirects: list[str | None] = [f"{world.site.url}/redirect/{address}" for address in PRIVATE]
    bad: list[str | None] = [*PRIVATE, *NO_ADDRESS, *redirects]
    captions: list[str | None] = [*CAPTIONS, *["caption"] * (len(bad) - 1), None]
    write_table(world.folder, [*good, *bad], captions)
    done = world.run("odd", "--min-yield", "0")
    assert done.returncode == 0, done.stdout + done.stderr
    ledger = world.manifest("odd")["ledger"]
    assert ledger["rows"] == len(good) + len(bad)
    assert ledger["kept"] + sum(ledger["failed"].values()) + sum(ledger["filtered"].values()) == ledger["rows"]
    # Some spellings are no address at all; what counts is that none of them was fetched, and each has its cause.
    assert sum(ledger["failed"].values()) == len(bad) + len(LOST)
    causes = {"refused_address", "refused_scheme", "no_url", "no_address", "bad_response", "no_caption", "bad_text"}
    assert set(ledger["failed"]) <= causes
    assert ledger["failed"]["refused_address"] >= len(PRIVATE)
    assert ledger["kept"] == len(good) - len(LOST)
    kept = captions_kept(world, "odd")
    # A caption that says nothing is no sample to learn from; every other one arrives as it was.
    assert set(kept) >= set(CAPTIONS) - set(LOST)
    assert not [path for path in world.folder.rglob("*") if path.name == "passwd"]


def captions_kept(world: World, prefix: str) -> list[str]:
    found = []
    for name in world.s3.names(prefix):
        if name.endswith(".tar"):
            with tarfile.open(fileobj=io.BytesIO(world.s3.read(f"{prefix}/{name}"))) as shard:
                members = [member for member in shard if member.name.endswith(".txt")]
                found += [(shard.extractfile(member) or io.BytesIO()).read().decode() for member in members]
    return found


@pytest.mark.chaos
@pytest.mark.timeout(3600)
def test_a_million_rows_to_private_addresses_are_refused_one_by_one(world: World) -> None:
    rows = 1_000_000
    urls: list[str | None] = [PRIVATE[row % len(PRIVATE)] + str(row) for row in range(rows)]
    write_table(world.folder, urls, ["caption"] * rows)
    began_s = time.monotonic()
    # What is known of each row of so large a table lies on the disk.
    done = run_within(replace(world, largest_file_kb=64 << 10), "million", memory_gib=4)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    ledger = world.manifest("million")["ledger"]
    assert ledger["rows"] == rows
    assert ledger["kept"] == 0
    assert sum(ledger["failed"].values()) + sum(ledger["filtered"].values()) == rows
    print(f"\n{rows:,} rows refused in {time.monotonic() - began_s:.0f} s: {json.dumps(ledger['failed'])}")


def run_within(world: World, prefix: str, memory_gib: int) -> subprocess.CompletedProcess[str]:
    before = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (memory_gib << 30, before[1]))
    try:
        return world.run(prefix, "--min-yield", "0", "--samples-per-shard", "10000", timeout_s=3600)
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)
