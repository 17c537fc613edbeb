"""Training and encoding in one job of two instance groups: the same training as from encoded latents."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import pytest

from params.layout import LATENTS, REFERENCE
from params.programs import EncodeArguments
from steps.artifact import publish
from steps.container import Cluster
from steps.data.encoding.plan import read_plan_file
from steps.encode import Encode
from steps.ray_cluster import leading
from tests.steps.data import s3_server
from tests.steps.data.shapes_shards import PRETRAINED, write_shards
from tests.steps.training.jobs import ROOT, Job, free_port

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:::ray"),
]

SHARDS = f"s3://{s3_server.BUCKET}/shards"
GROUPS = {"trainers": ["algo-1"], "encoders": ["algo-2"]}
SETTINGS = {
    "training_samples": 160,
    "global_batch_size": 16,
    "micro_batch_size": 8,
    "validation_samples": 8,
    "validate_every_samples": 160,
    "save_every_samples": 80,
    "encode_batch_size": 16,
    "blocks_ahead": 3,
}


@dataclass
class World:
    folder: Path

    def encode(self, name: str, **settings: object) -> Path:
        """Encode into a folder, as the channel `latents` holds it."""
        base = f"s3://{s3_server.BUCKET}/{name}"
        values = {
            "resolution_px": 64, "batch_size": 16, "rows_per_block": 16, "rows_per_shard": 64, "heldout_fraction": 0.1,
            "workers": 1, "shards_uri": SHARDS,
            "latents_uri": f"{base}/{LATENTS}", "reference_uri": f"{base}/{REFERENCE}",
        }  # fmt: skip
        arguments = EncodeArguments.model_validate({**values, **settings})
        artifacts = Encode(arguments, self.folder / "manifest.json", PRETRAINED).run()
        publish(self.folder / name, artifacts[LATENTS])
        return self.folder / name


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("online")
    with s3_server.serving() as s3:
        manifest = write_shards(SHARDS, [90, 70, 40])
        (folder / "manifest.json").write_text(manifest.model_dump_json())
        made = World(folder)
        with leading(Cluster(("localhost",), "localhost", "localhost", 1, 2), "test", 60):
            for name, limit in (("whole", 0), ("some", 64)):
                latents = made.encode(name, max_train_rows=limit)
                publish(latents, {key: s3.read(f"{name}/{LATENTS}/{key}") for key in s3.names(f"{name}/{LATENTS}")})
        yield made


@pytest.fixture(scope="module")
def offline(world: World) -> Job:
    job = Job(world.folder / "offline", dict(SETTINGS)).write(PRETRAINED, world.folder / "whole")
    job.run()
    return job


@dataclass
class OnlineJob:
    """A job of two groups: a folder and a process for each host."""

    hosts: dict[str, Job]
    processes: dict[str, subprocess.Popen[bytes]]

    def log(self, host: str) -> str:
        return (self.hosts[host].base / "log.txt").read_text()

    def until(self, text: str, host: str, timeout_s: float = 300.0) -> None:
        deadline_s = time.monotonic() + timeout_s
        while text not in self.log(host):
            assert time.monotonic() < deadline_s and self.processes[host].poll() is None, self.log(host)
            time.sleep(0.05)

    def wait(self, timeout_s: float = 300.0) -> dict[str, int]:
        return {host: process.wait(timeout_s) for host, process in self.processes.items()}


Start = Callable[..., OnlineJob]


@pytest.fixture
def start(tmp_path: Path, world: World) -> Iterator[Start]:
    """Return a function that starts a job of two groups; whatever is still running at the end is killed."""
    jobs: list[OnlineJob] = []

    def started(groups: dict[str, list[str]] = GROUPS, **settings: object) -> OnlineJob:
        jobs.append(start_hosts(tmp_path, world.folder / "some", groups, settings))
        return jobs[-1]

    yield started
    for process in (process for job in jobs for process in job.processes.values()):
        process.kill()
        process.wait()


def start_hosts(folder: Path, latents: Path, groups: dict[str, list[str]], settings: dict[str, object]) -> OnlineJob:
    """Start a process for each host of each group, as SageMaker does."""
    names = [host for hosts in groups.values() for host in hosts]
    ports = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "RAY_HEAD_PORT": str(free_port())}
    job = OnlineJob({}, {})
    for group, hosts in groups.items():
        for host in hosts:
            own = Job(folder / host, {**SETTINGS, "shards_uri": SHARDS, **settings}).write(PRETRAINED, latents)
            config = {
                "hosts": names, "current_host": host, "current_group_name": group,
                "instance_groups": [
                    {"instance_group_name": name, "instance_type": "ml.c5.large", "hosts": of}
                    for name, of in groups.items()
                ],
            }  # fmt: skip
            (own.base / "input" / "config" / "resourceconfig.json").write_text(json.dumps(config))
            with (own.base / "log.txt").open("ab") as log:
                command = [sys.executable, "-m", "steps", "train"]
                process = subprocess.Popen(command, env=own.environment(**ports), cwd=ROOT, stdout=log, stderr=log)
            job.hosts[host], job.processes[host] = own, process
    return job


def test_it_trains_the_same_model_as_from_encoded_latents(start: Start, offline: Job) -> None:
    job = start()
    assert job.wait() == {"algo-1": 0, "algo-2": 0}, job.log("algo-1")
    expected, found = offline.unet(), job.hosts["algo-1"].unet()
    assert all(np.array_equal(expected[name], found[name]) for name in expected)
    entries = [entry for entry in job.hosts["algo-1"].log() if "data_s" in entry]
    assert all(entry["encoder_wait_s"] >= 0 for entry in entries)
    assert not (job.hosts["algo-2"].base / "model").exists()


def test_a_killed_encoder_costs_its_blocks_another_try(start: Start, offline: Job) -> None:
    job = start()
    job.until("2 encoders on 1 hosts", "algo-1")
    family = psutil.Process(job.processes["algo-2"].pid).children(recursive=True)
    os.kill(next(process.pid for process in family if "OnlineEncoder" in " ".join(process.cmdline())), signal.SIGKILL)
    assert job.wait() == {"algo-1": 0, "algo-2": 0}, job.log("algo-1")
    expected, found = offline.unet(), job.hosts["algo-1"].unet()
    assert all(np.array_equal(expected[name], found[name]) for name in expected)


def test_two_trainers_stop_on_sigterm_with_a_checkpoint_and_the_encoders_end(start: Start) -> None:
    groups = {"trainers": ["algo-1", "algo-2"], "encoders": ["algo-3"]}
    endless = {"training_samples": 8_000_000, "save_every_samples": 8_000_000, "validate_every_samples": 8_000_000}
    job = start(groups, **endless)
    job.until("training_loss=", "algo-1")
    job.processes["algo-2"].send_signal(signal.SIGTERM)
    assert job.wait() == {"algo-1": 143, "algo-2": 143, "algo-3": 0}, job.log("algo-1")
    assert len(job.hosts["algo-1"].checkpoints) == 1
    assert not job.hosts["algo-2"].checkpoints


def test_the_limited_latents_plan_every_row(world: World) -> None:
    whole, some = (read_plan_file(world.folder / name / "plan.json") for name in ("whole", "some"))
    assert whole.block_rows("train").tolist() == some.block_rows("train").tolist()
    manifest = json.loads((world.folder / "some" / "manifest.json").read_text())
    assert manifest["counts"]["train"] == 64 < int(some.block_rows("train").sum())
