"""`python -m steps train`: as SageMaker calls it, over torchrun where there is more than one rank."""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from params.layout import metric_regex
from params.programs import TrainArguments
from steps import train
from steps.container import Cluster, Container
from steps.errors import StepError
from steps.training import job as job_module
from steps.training import launch
from tests.processes import outlive
from tests.steps.training.jobs import ROOT, Job, free_port
from tests.steps.training.tiny_model import write_latents, write_pretrained

HOSTS = ("algo-1", "algo-2")


@pytest.fixture(scope="module")
def channels(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("channels")
    pretrained = write_pretrained(folder / "pretrained")
    return pretrained, write_latents(folder / "latents", pretrained)


def hosts_of(base: Path, channels: tuple[Path, Path], **settings: object) -> list[Job]:
    """Write a job on two hosts, each with a folder of its own, as SageMaker does."""
    jobs = [Job(base / host, {"precision": "float64", **settings}).write(*channels) for host in HOSTS]
    for host, job in zip(HOSTS, jobs, strict=True):
        config = {"hosts": list(HOSTS), "current_host": host}
        (job.base / "input" / "config" / "resourceconfig.json").write_text(json.dumps(config))
    return jobs


def start(jobs: list[Job], log_dir: Path) -> list[subprocess.Popen[bytes]]:
    port, processes = str(free_port()), []
    for job in jobs:
        environment = job.environment(MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
        with (log_dir / f"{job.base.name}.log").open("ab") as log:
            command = [sys.executable, "-m", "steps", "train"]
            processes.append(subprocess.Popen(command, env=environment, cwd=ROOT, stdout=log, stderr=log))
    return processes


def wait_for(text: str, log: Path, processes: list[subprocess.Popen[bytes]], timeout_s: float = 120.0) -> None:
    deadline_s = time.monotonic() + timeout_s
    while text not in log.read_text():
        assert time.monotonic() < deadline_s, log.read_text()
        assert all(process.poll() is None for process in processes), log.read_text()
        time.sleep(0.01)


def test_two_hosts_train_over_torchrun_stop_on_sigterm_and_end_with_their_launcher(
    tmp_path: Path, channels: tuple[Path, Path]
) -> None:
    """One long test, for each start of torchrun costs seconds."""
    log = tmp_path / "algo-1.log"
    endless = hosts_of(tmp_path, channels, training_samples=8_000_000, save_every_samples=8_000_000)
    processes = start(endless, tmp_path)
    wait_for("training_loss=", log, processes)
    processes[1].send_signal(signal.SIGTERM)
    assert [process.wait(60) for process in processes] == [143, 143], log.read_text()
    assert re.findall(metric_regex("images_per_s_per_gpu"), log.read_text(), re.MULTILINE)
    assert len(endless[0].checkpoints) == 1
    assert not endless[1].checkpoints, "only the head writes"
    assert not (endless[0].base / "output" / "failure").exists()

    processes = start(endless, tmp_path)
    wait_for("going on from", log, processes)
    ranks = [child for process in processes for child in psutil.Process(process.pid).children(recursive=True)]
    assert len(ranks) == 2
    for process in processes:
        process.kill()
        process.wait()
    assert not outlive(ranks, 30), "no rank outlives its torchrun"


def test_a_rank_that_fails_under_torchrun_gives_the_job_its_reason(tmp_path: Path, channels: tuple[Path, Path]) -> None:
    jobs = hosts_of(tmp_path, channels)
    for job in jobs:
        (job.base / "input" / "data" / "latents").unlink()
        (job.base / "input" / "data" / "latents").mkdir()
    processes = start(jobs, tmp_path)
    assert [process.wait(120) for process in processes] == [1, 1]
    assert re.match(r"rank 0: .*latents/manifest.json", jobs[0].failure)
    assert re.match(r"rank 1: .*(latents/manifest.json|lost the others)", jobs[1].failure)


def test_a_global_batch_that_does_not_divide_is_refused_before_any_rank_starts(
    tmp_path: Path, channels: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = hosts_of(tmp_path, channels, micro_batch_size=8)[0]
    monkeypatch.setenv("SAGEMAKER_BASE_DIR", str(job.base))
    monkeypatch.setattr(job_module, "launch_ranks", lambda *args: pytest.fail("started"))
    message = "global_batch_size 8 is no multiple of micro_batch_size 8 x 2 ranks; .* micro_batch_size 4, 2, 1"
    with pytest.raises(StepError, match=message):
        train.main([])


@pytest.fixture
def started(tmp_path: Path, channels: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> list[TrainArguments]:
    (tmp_path / "input" / "data").mkdir(parents=True)
    (tmp_path / "input" / "data" / "pretrained").symlink_to(channels[0])
    calls: list[TrainArguments] = []

    def run(arguments: TrainArguments, container: Container) -> int:
        calls.append(arguments)
        return 0

    monkeypatch.setattr(job_module, "run_rank", run)
    for name in ("TORCHELASTIC_RUN_ID", "RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    return calls


def hyperparameters(base: Path, monkeypatch: pytest.MonkeyPatch, values: dict[str, str]) -> None:
    config = base / "input" / "config"
    config.mkdir(parents=True)
    (config / "hyperparameters.json").write_text(json.dumps(values))
    monkeypatch.setenv("SAGEMAKER_BASE_DIR", str(base))


def test_settings_come_from_the_hyperparameters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, started: list[TrainArguments]
) -> None:
    sagemakers_own = {"_tuning_objective_metric": "validation_loss", "sagemaker_region": "us-east-1"}
    ours = {"global_batch_size": "64", "micro_batch_size": '"32"', "precision": '"float32"', "compile": "false"}
    hyperparameters(tmp_path, monkeypatch, sagemakers_own | ours)
    assert train.main([]) == 0
    (arguments,) = started
    assert arguments.model_dump(include=set(ours)) == {
        "global_batch_size": 64,
        "micro_batch_size": 32,
        "precision": "float32",
        "compile": False,
    }


def test_an_unknown_hyperparameter_is_named_with_the_nearest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hyperparameters(tmp_path, monkeypatch, {"learning_rat": "0.1"})
    with pytest.raises(StepError, match=r"hyperparameters.json: unknown setting 'learning_rat'.*'learning_rate'"):
        train.main([])


def test_flags_win_where_there_are_any(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, started: list[TrainArguments]
) -> None:
    hyperparameters(tmp_path, monkeypatch, {"global_batch_size": "64"})
    assert train.main(["--global-batch-size", "32", "--micro-batch-size", "16"]) == 0
    assert started[0].global_batch_size == 32


def test_a_rank_that_was_killed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the launcher, for it could leave no word itself."""
    monkeypatch.setattr(launch, "ENTRY_POINT", ("python", "-c", "import os, signal; os.kill(os.getpid(), 9)"))
    cluster = Cluster(("algo-1",), "algo-1", "127.0.0.1", free_port(), free_port())
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    try:
        with pytest.raises(StepError, match="rank 0 was ended by SIGKILL"):
            launch.launch_ranks([], cluster, 1, "job-1", 10)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
