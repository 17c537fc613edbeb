"""Jobs as real processes that start in no time: forked from a server that has imported everything.

The server itself never runs a backward pass, so that its children may.
"""

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from tests.steps.training.mounts import mount_small

PRELOADED = [__name__, "steps.train", "steps.__main__", "tests.steps.training.preload"]


class Running:
    """The processes of a job and what they print."""

    def __init__(self, environments: list[dict[str, str]], log_dir: Path) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(PRELOADED)
        log_dir.mkdir(parents=True, exist_ok=True)
        self.logs = [log_dir / f"rank-{number}.log" for number in range(len(environments))]
        self.processes: list[ForkServerProcess] = []
        for environment, log in zip(environments, self.logs, strict=True):
            log.write_text("")
            process = context.Process(target=run_train, args=(environment, str(log)), daemon=True)
            process.start()
            self.processes.append(process)

    @property
    def output(self) -> str:
        return "\n".join(log.read_text() for log in self.logs)

    def until(self, text: str, timeout_s: float = 60.0) -> None:
        """Wait for the beginning of a line."""
        deadline_s = time.monotonic() + timeout_s
        while f"\n{text}" not in f"\n{self.output}":
            assert time.monotonic() < deadline_s, self.output
            assert any(process.is_alive() for process in self.processes), self.output
            time.sleep(0.002)

    def send(self, number: int, rank: int | None = None) -> None:
        for process in self.processes if rank is None else [self.processes[rank]]:
            if process.pid is not None and process.is_alive():
                os.kill(process.pid, number)

    def wait(self, timeout_s: float = 90.0) -> list[int | None]:
        """Return the exit statuses."""
        deadline_s = time.monotonic() + timeout_s
        for process in self.processes:
            process.join(max(0.1, deadline_s - time.monotonic()))
        late = [process for process in self.processes if process.is_alive()]
        for process in late:
            process.kill()
            process.join()
        assert not late, f"still running after {timeout_s} s:\n{self.output}"
        return [process.exitcode for process in self.processes]


def run_train(environment: Mapping[str, str], log: str) -> None:
    """Be `python -m steps train`: what the child does."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.environ.clear()
    os.environ.update(environment)
    hook: Callable[[], None] | None = _hooks.get(environment.get("TEST_HOOK", ""))
    if hook is not None:
        hook()
    from steps.__main__ import main

    sys.exit(main(["train"]))


def _slow_steps() -> None:
    """Take long enough over each step that a test can interrupt it."""
    from steps.training.optimizer_step import OptimizerStep

    take = OptimizerStep.take

    def slowly(self: OptimizerStep, *args: object) -> object:
        time.sleep(float(os.environ["TEST_STEP_S"]))
        return take(self, *args)  # type: ignore[arg-type]

    OptimizerStep.take = slowly  # type: ignore[method-assign, assignment]


def _full_disk() -> None:
    """Have a checkpoint volume with room for one checkpoint and a half."""
    mount_small(Path(os.environ["SAGEMAKER_BASE_DIR"]) / "checkpoints", int(os.environ["TEST_DISK_KIB"]), False)


def _read_only_volume() -> None:
    """Have a checkpoint volume that is read-only."""
    mount_small(Path(os.environ["SAGEMAKER_BASE_DIR"]) / "checkpoints", 1024, True)


def _flipped_bit() -> None:
    """Be a faulty device on rank 1: one bit of a weight changes at the fifth step.

    Not the last bit: AdamW's next steps may round it away again.
    """
    import torch

    from steps.training.optimizer_step import OptimizerStep

    take, steps = OptimizerStep.take, iter(range(1000))

    def faulty(self: OptimizerStep, *args: object) -> object:
        result = take(self, *args)  # type: ignore[arg-type]
        if next(steps) == 4 and os.environ.get("RANK") == "1":
            self.state.parameters[0].detach().view(torch.int32).flatten()[0] ^= 1 << 20
        return result

    OptimizerStep.take = faulty  # type: ignore[method-assign, assignment]


def _slow_disk() -> None:
    """Take long over each checkpoint: longer than a step."""
    from steps.training.checkpoint_folder import CheckpointFolder

    write = CheckpointFolder.write

    def slowly(self: CheckpointFolder, *args: object) -> object:
        time.sleep(0.5)
        return write(self, *args)  # type: ignore[arg-type]

    CheckpointFolder.write = slowly  # type: ignore[method-assign, assignment]


def _early_spikes() -> None:
    """Look for spikes from the fifth step on: these trainings are short."""
    from steps.training import window

    window.SPIKE_MIN_STEPS = 4  # type: ignore[misc]


def _killed_in_export() -> None:
    """Die when the model is about to be written."""
    from steps.training import session

    def die(*args: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    session.export_model = die


_hooks = {
    "slow_steps": _slow_steps,
    "full_disk": _full_disk,
    "read_only_volume": _read_only_volume,
    "flipped_bit": _flipped_bit,
    "slow_disk": _slow_disk,
    "early_spikes": _early_spikes,
    "killed_in_export": _killed_in_export,
}
