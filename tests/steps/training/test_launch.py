"""A training job over two hosts that know each other by SageMaker's names alone."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.steps import namespaces
from tests.steps.training.jobs import ROOT, Job, free_port

COMMAND = [sys.executable, "-m", "steps", "train"]
needs_namespaces = pytest.mark.skipif(not namespaces.possible(), reason="network namespaces need root, ip and unshare")


def on_host(base: Path, pretrained: Path, latents: Path, me: str, interface: str = "", **settings: object) -> Job:
    """Write the folder of one host of two."""
    job = Job(base / me, settings).write(pretrained, latents)
    config = {"hosts": ["algo-1", "algo-2"], "current_host": me}
    if interface:
        config["network_interface_name"] = interface
    (job.base / "input" / "config" / "resourceconfig.json").write_text(json.dumps(config))
    return job


def wait(processes: list[subprocess.Popen[bytes]], logs: list[Path], timeout_s: float = 150) -> list[int]:
    deadline_s = time.monotonic() + timeout_s
    try:
        return [process.wait(max(1, deadline_s - time.monotonic())) for process in processes]
    except subprocess.TimeoutExpired:
        pytest.fail("\n".join(log.read_text() for log in logs))
    finally:
        for process in processes:
            process.kill()


@needs_namespaces
@pytest.mark.parametrize("own_name", ["", "127.0.1.1"], ids=["unresolved", "loopback"])
def test_two_hosts_meet_whatever_their_own_names_resolve_to_and_train_the_bytes_of_one_host(
    tmp_path: Path, pretrained: Path, latents: Path, own_name: str
) -> None:
    logs = [tmp_path / f"log-{number}" for number in (1, 2)]
    with namespaces.foreign_hosts(2, tmp_path, f"sdt{os.getpid()}-", own_name) as hosts:
        jobs = [on_host(tmp_path, pretrained, latents, host.name, host.interface) for host in hosts]
        processes = []
        for host, job, log in zip(hosts, jobs, logs, strict=True):
            with log.open("wb") as file:
                command = host.command(COMMAND)
                processes.append(subprocess.Popen(command, env=job.environment(), stdout=file, stderr=file, cwd=ROOT))
        assert wait(processes, logs) == [0, 0], "\n".join(log.read_text() for log in logs)
    alone = Job(tmp_path / "alone").write(pretrained, latents)
    alone.run(ranks=2)
    weights = Path("unet") / "diffusion_pytorch_model.safetensors"
    assert (jobs[0].model_dir / weights).read_bytes() == (alone.model_dir / weights).read_bytes()


def test_a_host_that_never_comes_is_named_with_interface_and_port(
    tmp_path: Path, pretrained: Path, latents: Path
) -> None:
    port = str(free_port())
    job = on_host(tmp_path, pretrained, latents, "algo-1", "lo", host_wait_s=1)
    environment = job.environment(MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
    done = subprocess.run(COMMAND, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.returncode == 1, done.stderr
    assert f"host algo-2 has not come to algo-1, port {port} over interface lo in 1 s" in job.failure


def test_a_first_host_that_never_comes_is_named_with_interface_and_port(
    tmp_path: Path, pretrained: Path, latents: Path
) -> None:
    port = str(free_port())
    job = on_host(tmp_path, pretrained, latents, "algo-2", "lo", host_wait_s=1)
    environment = job.environment(MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
    done = subprocess.run(COMMAND, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.returncode == 1, done.stderr
    assert (
        f"host algo-1 does not answer at 127.0.0.1:{port} over interface lo (Connection refused) in 1 s" in job.failure
    )
