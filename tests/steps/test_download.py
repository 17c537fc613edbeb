"""The program as a job runs it: own processes, S3, and a web with faults."""

import hashlib
import io
import json
import os
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.processes import outlive
from tests.steps.data import s3_server, web

PICTURES = 50
FAULTS = {
    "/gone": "http_404",
    "/cut/1": "truncated",
    "/noise/1": "corrupt",
    "/svg/1": "unsupported_format",
    "/page/1": "not_a_picture",
    "/bomb/1": "too_many_pixels",
    "/huge/1": "body_too_large",
    "/slow/1": "timeout",
    "/small/1": "too_small",
    "/wide/1": "aspect_ratio",
    "/robots/unavailable_after:_tomorrow,_noai": "disallowed",
    "/redirect/http://127.0.0.1:9/": "refused_address",
    "/redirect/http://blocked.example/1": "blocked_host",
    "/picture/7": "duplicate",
    "/picture/8?elsewhere": "duplicate_picture",
}


@dataclass
class World:
    site: web.Web
    s3: s3_server.S3
    folder: Path
    # Every shard is larger: what is on a local disk fails.
    largest_file_kb: int = 32

    def command(self, prefix: str, *flags: str) -> list[str]:
        settings = ["--processes", "1", "--threads", "8", "--timeout-s", "1", "--retries", "0", "--image-size-px", "64"]
        settings += ["--samples-per-shard", "25", "--max-body-mb", "1", "--allowed-hosts", self.site.host]
        settings += ["--blocklist-uri", str(self.folder / "blocklist"), *flags]
        addresses = ["--url-table", str(self.folder / "urls"), "--shards-uri", f"s3://{s3_server.BUCKET}/{prefix}"]
        limit = ["bash", "-c", f'ulimit -f {self.largest_file_kb} && exec "$@"', "bash"]
        return [*limit, sys.executable, "-m", "steps", "download", *addresses, *settings]

    def environment(self, prefix: str) -> dict[str, str]:
        base = self.folder / prefix
        (base / "output").mkdir(parents=True, exist_ok=True)
        return {**os.environ, "SAGEMAKER_BASE_DIR": str(base), "PYTHONDONTWRITEBYTECODE": "1"}

    def run(self, prefix: str, *flags: str, job: str = "", timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
        environment = self.environment(job or prefix)
        return subprocess.run(
            self.command(prefix, *flags), env=environment, capture_output=True, text=True, timeout=timeout_s
        )

    def start_host(self, prefix: str, host: str, hosts: list[str], port: int) -> subprocess.Popen[str]:
        """Start one host of a job that has several."""
        environment = {
            **self.environment(f"{prefix}-{host}"),
            "MASTER_ADDR": "127.0.0.1",
            "RAY_HEAD_PORT": str(port),
        }
        config = Path(environment["SAGEMAKER_BASE_DIR"]) / "config" / "resourceconfig.json"
        config.parent.mkdir()
        config.write_text(json.dumps({"hosts": hosts, "current_host": host}))
        # Ray's session has files larger than the limit; its tasks are the same code as a single host's.
        command = self.command(prefix)[4:]
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def manifest(self, prefix: str) -> dict[str, Any]:
        path = self.folder / prefix / "processing" / "output" / "shards" / "manifest.json"
        manifest: dict[str, Any] = json.loads(path.read_text())
        return manifest


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("download")
    with web.serving() as site, s3_server.serving() as s3:
        paths = [f"/picture/{number}" for number in range(PICTURES)] + list(FAULTS)
        urls = [site.url + path for path in paths]
        (folder / "urls").mkdir()
        (folder / "blocklist").write_text("host: blocked.example")
        table = pa.table({"url": urls, "caption": [f"caption of {path}" for path in paths]})
        pq.write_table(table, folder / "urls" / "0.parquet")
        yield World(site, s3, folder)


@pytest.fixture(scope="module")
def unbroken(world: World) -> subprocess.CompletedProcess[str]:
    """A run during which S3 refuses one shard once."""
    world.s3.faults.append(lambda method, path: method == "PUT" and path.startswith("/test-bucket/shards/00001.tar"))
    done = world.run("shards")
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def test_every_fault_costs_its_row_and_is_counted_under_its_cause(
    world: World, unbroken: subprocess.CompletedProcess[str]
) -> None:
    ledger = world.manifest("shards")["ledger"]
    assert ledger["failed"] | ledger["filtered"] == dict.fromkeys(FAULTS.values(), 1)
    assert set(ledger["filtered"]) == {"too_small", "aspect_ratio", "duplicate", "duplicate_picture", "blocked_host"}
    assert (ledger["rows"], ledger["kept"]) == (PICTURES + len(FAULTS), PICTURES)
    assert ledger["tried"] == PICTURES + len(FAULTS) - 1
    assert world.site.hits["/picture/7"] >= 1


def test_the_shards_hold_every_picture_once_cropped_to_the_square(
    world: World, unbroken: subprocess.CompletedProcess[str]
) -> None:
    urls = []
    for shard in world.manifest("shards")["shards"]:
        with tarfile.open(fileobj=io.BytesIO(world.s3.read(f"shards/{shard['name']}"))) as tar:
            contents = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
        assert len(contents) == 3 * (shard["samples"] + sum(shard["dropped"].values()))
        for name, content in contents.items():
            if name.endswith(".json"):
                urls.append(json.loads(content)["url"])
                caption = contents[name.replace(".json", ".txt")].decode()
                assert caption == f"caption of {urls[-1].removeprefix(world.site.url)}"
            elif name.endswith(".jpg"):
                assert Image.open(io.BytesIO(content)).size == (64, 64)
    copy = f"{world.site.url}/picture/8?elsewhere"
    assert urls == [*(f"{world.site.url}/picture/{number}" for number in range(PICTURES)), copy]


def test_a_shard_that_s3_refused_was_made_again(world: World, unbroken: subprocess.CompletedProcess[str]) -> None:
    assert not world.s3.faults
    assert "shard 00001 failed (1 of 3 tries)" in unbroken.stdout
    assert not world.s3.client.list_multipart_uploads(Bucket=s3_server.BUCKET).get("Uploads")


def test_progress_counts_every_row(unbroken: subprocess.CompletedProcess[str]) -> None:
    lines = [json.loads(line[9:]) for line in unbroken.stdout.splitlines() if line.startswith("PROGRESS ")]
    assert lines[-1]["done"] == lines[-1]["total"] == PICTURES + len(FAULTS)


def test_several_hosts_share_the_table_and_make_the_same_shards(
    world: World, unbroken: subprocess.CompletedProcess[str]
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    hosts = ["algo-1", "algo-2"]
    # img2dataset's own Ray distributor passes over a shard that failed.
    world.s3.faults.append(lambda method, path: method == "PUT" and path.startswith("/test-bucket/hosts/00001.tar"))
    # The second host is there first: it waits for the head.
    other, head = (world.start_host("hosts", host, hosts, port) for host in reversed(hosts))
    output, errors = head.communicate(timeout=200)
    assert head.returncode == 0, output + errors
    assert not world.s3.faults and "shard 00001 failed (1 of 3 tries)" in output
    assert other.communicate(timeout=60)[0] == "" and other.returncode == 0
    assert world.manifest("hosts-algo-1") == world.manifest("shards")
    assert not list((world.folder / "hosts-algo-2").rglob("manifest.json"))
    for shard in world.manifest("shards")["shards"]:
        assert world.s3.read(f"hosts/{shard['name']}") == world.s3.read(f"shards/{shard['name']}")


def kill_after(world: World, prefix: str, name: str) -> None:
    """Kill the program alone, as img2dataset's users do, as soon as an object is there; its workers end with it."""
    process = subprocess.Popen(
        world.command(prefix), env=world.environment(prefix), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline_s = time.monotonic() + 100
    while name not in world.s3.names(prefix) and time.monotonic() < deadline_s:
        time.sleep(0.02)
    workers = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    assert workers and not outlive(workers, 10)


def test_a_run_killed_twice_and_started_again_ends_with_the_same_bytes(
    world: World, unbroken: subprocess.CompletedProcess[str]
) -> None:
    """img2dataset lost 967 of 6,000 samples this way, and ended with exit 0."""
    kill_after(world, "killed", "00000.tar")
    kill_after(world, "killed", "00000.verified.json")
    assert "00002.verified.json" not in world.s3.names("killed")

    world.site.hits.clear()
    again = world.run("killed")
    assert again.returncode == 0, again.stdout + again.stderr
    assert world.site.hits["/picture/0"] == 0 and world.site.hits["/picture/49"] >= 1
    assert world.manifest("killed") == world.manifest("shards")
    for shard in world.manifest("shards")["shards"]:
        assert world.s3.read(f"killed/{shard['name']}") == world.s3.read(f"shards/{shard['name']}")


def test_a_run_resumed_with_another_shard_size_holds_every_picture_once(
    world: World, unbroken: subprocess.CompletedProcess[str]
) -> None:
    """Shards of both sizes lie side by side, and count; img2dataset lost half of the pictures and ended with exit 0."""
    resumed = world.run("killed", "--samples-per-shard", "40", job="resumed")
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    manifest, before = world.manifest("resumed"), world.manifest("shards")
    assert manifest["plan_digest"] != before["plan_digest"]
    assert {**manifest["ledger"], "bytes": 0} == {**before["ledger"], "bytes": 0}
    for shard in manifest["shards"]:
        assert hashlib.sha256(world.s3.read(f"killed/{shard['name']}")).hexdigest() == shard["sha256"]


def test_too_low_a_yield_fails_the_job_without_a_manifest(
    world: World, unbroken: subprocess.CompletedProcess[str]
) -> None:
    done = world.run("shards", "--min-yield", "0.99", job="low")
    failure = (world.folder / "low" / "output" / "failure").read_text()
    assert done.returncode == 1 and f"min_yield: 50 of {PICTURES + 10} rows became samples" in failure
    assert not list((world.folder / "low").rglob("manifest.json"))


def test_a_table_that_is_not_there_fails_the_job_in_one_line(world: World) -> None:
    done = world.run("nothing", "--url-table", str(world.folder / "elsewhere"))
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert f"error: url_table: no parquet, CSV or TSV file at {world.folder / 'elsewhere'}" in done.stderr


def test_a_folder_of_pictures_is_stored_once_each_with_all_captions_and_what_lacks_one_is_counted(world: World) -> None:
    folder = world.folder / "mine"
    folder.mkdir()
    lines: list[dict[str, Any]] = [{"file_name": "0.jpg", "text": ["one &amp; only", "two"]}, {"file_name": "1.jpg"}]
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n{")
    for number in range(2):
        (folder / f"{number}.jpg").write_bytes(web.picture(number))
    own = ["--url-table", str(folder), "--source", "pictures", "--captions", "all"]
    done = world.run("mine", *own, "--keep-uncaptioned", "true")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "metadata_line, for example:" in done.stdout
    assert "1 samples have no caption" in done.stdout
    ledger = world.manifest("mine")["ledger"]
    assert (ledger["kept"], ledger["uncaptioned"], ledger["set_aside"]) == (2, 1, {"metadata_line": 1})
    samples = pq.read_table(io.BytesIO(world.s3.read("mine/00000.samples.parquet")))
    assert samples["captions"].to_pylist() == [["one & only", "two"], [""]]
    with tarfile.open(fileobj=io.BytesIO(world.s3.read("mine/00000.tar"))) as tar:
        texts = [tar.extractfile(member).read() for member in tar if member.name.endswith(".txt")]  # type: ignore[union-attr]
    assert texts == [b"one & only", b""]

    strict = world.run("mine", *own, job="strict")
    assert strict.returncode == 0, strict.stdout + strict.stderr
    ledger = world.manifest("strict")["ledger"]
    assert (ledger["kept"], ledger["failed"]) == (1, {"no_caption": 1})
    assert "uncaptioned" not in ledger
