"""Training and encoding in one job of two instance groups: the same training as from encoded latents."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from params.layout import LATENTS, REFERENCE
from params.programs import EncodeArguments
from steps.container import Cluster
from steps.data.plan_file import read_plan_file
from steps.encode import Encode, write_file
from steps.ray_cluster import leading
from tests.steps.data import s3_server
from tests.steps.data.shapes_shards import PRETRAINED, write_shards
from tests.steps.training.jobs import ROOT, Job, free_port

pytestmark = [pytest.mark.filterwarnings("ignore::DeprecationWarning"), pytest.mark.filterwarnings("ignore:::ray")]

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
        for file, content in artifacts[LATENTS].items():
            write_file(self.folder / name / file, content)
        return self.folder / name


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("online")
    with s3_server.serving() as s3:
        manifest = write_shards(SHARDS, [90, 70, 40])
        (folder / "manifest.json").write_text(manifest.model_dump_json())
        made = World(folder)
        with leading(Cluster(("localhost",), "localhost", "localhost", 1, 2), "test"):
            for name, limit in (("whole", 0), ("some", 64)):
                latents = made.encode(name, max_train_rows=limit)
                for key in s3.names(f"{name}/{LATENTS}"):
                    write_file(latents / key, s3.read(f"{name}/{LATENTS}/{key}"))
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

    def wait(self, timeout_s: float = 240.0) -> dict[str, int]:
        return {host: process.wait(timeout_s) for host, process in self.processes.items()}


def start(folder: Path, latents: Path, groups: dict[str, list[str]] | None = None, **settings: object) -> OnlineJob:
    """Start a host's process for each host of each group, as SageMaker does."""
    groups = groups or GROUPS
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


def test_it_trains_the_same_model_as_from_encoded_latents(world: World, offline: Job, tmp_path: Path) -> None:
    job = start(tmp_path, world.folder / "some")
    assert job.wait() == {"algo-1": 0, "algo-2": 0}, job.log("algo-1")
    expected, found = offline.unet(), job.hosts["algo-1"].unet()
    assert all(np.array_equal(expected[name], found[name]) for name in expected)
    entries = [entry for entry in job.hosts["algo-1"].log() if "data_s" in entry]
    assert all(entry["encoder_wait_s"] >= 0 for entry in entries)
    assert not (job.hosts["algo-2"].base / "model").exists()


def test_the_limited_latents_plan_every_row(world: World) -> None:
    whole, some = (read_plan_file(world.folder / name / "plan.json") for name in ("whole", "some"))
    assert whole.block_rows("train").tolist() == some.block_rows("train").tolist()
    manifest = json.loads((world.folder / "some" / "manifest.json").read_text())
    assert manifest["counts"]["train"] == 64 < int(some.block_rows("train").sum())
