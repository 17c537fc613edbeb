"""The ranks of a training job: who this process is, the few things that ranks say to each other, and why one ended.

Reads RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR and MASTER_PORT, as torchrun sets them; without them
this process is the only rank. Gradients travel over NCCL on GPUs and gloo on CPUs. What the hosts agree on (to stop,
a checksum, a JSON text) travels over gloo always, so that it never waits for a GPU. Writes a rank's error into the file
that TORCHELASTIC_ERROR_FILE names; the launcher reads those of all ranks and reports the cause of the others.
"""

import json
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import torch
import torch.distributed as dist
from torch import Tensor

from params.model import Model
from steps.device import choose_device, gpu_count
from steps.errors import StepError

LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")
# The watchdog speaks first: it can name the rank that hangs, and knows when being slow is no fault.
TIMEOUT_FACTOR: Final = 11
ERROR_FILE_VARIABLE: Final = "TORCHELASTIC_ERROR_FILE"
ERROR_FILE: Final = "error.json"


@dataclass(frozen=True)
class World:
    """This rank among all ranks."""

    rank: int
    size: int
    local_rank: int
    device: torch.device
    control: dist.ProcessGroup | None = None
    """Gloo group of all ranks; None for a single rank."""

    @property
    def is_head(self) -> bool:
        """Whether this rank writes what there is once for a job."""
        return self.rank == 0

    def broadcast_json(self, value: Any) -> Any:
        """Return the head's value on every rank."""
        if self.control is None:
            return value
        content = json.dumps(value).encode() if self.is_head else b""
        size = torch.tensor([len(content)], dtype=torch.int64)
        dist.broadcast(size, 0, group=self.control)
        text = torch.frombuffer(bytearray(content.ljust(int(size))), dtype=torch.uint8)
        dist.broadcast(text, 0, group=self.control)
        return json.loads(text.numpy().tobytes())

    def gather_int(self, value: int) -> list[int]:
        """Return every rank's number (int64), in the order of the ranks."""
        if self.control is None:
            return [value]
        numbers = torch.zeros(self.size, dtype=torch.int64)
        numbers[self.rank] = value
        dist.all_reduce(numbers, group=self.control)
        return numbers.tolist()

    def sum_(self, tensor: Tensor) -> Tensor:
        """Add up a CPU tensor over the ranks, in place."""
        if self.control is not None:
            dist.all_reduce(tensor, group=self.control)
        return tensor

    def broadcast(self, value: Tensor | None, like: Tensor) -> Tensor:
        """Return the head's tensor on every rank's device; the others know its shape and dtype."""
        whole = torch.empty(like.shape, dtype=like.dtype) if value is None else value.contiguous()
        whole = whole.to(self.device)
        if self.size > 1:
            dist.broadcast(whole, 0)
        return whole


def join_world(environment: Mapping[str, str], timeout_s: float) -> World:
    """Return this process's place, after all ranks have met; CPU threads are shared out among the host's ranks."""
    size, rank = int(environment.get("WORLD_SIZE", "1")), int(environment.get("RANK", "0"))
    local_rank = int(environment.get("LOCAL_RANK", "0"))
    device = choose_device(local_rank=local_rank)
    _share_threads(environment)
    if size == 1:
        return World(rank, size, local_rank, device)
    if environment.get("MASTER_ADDR", "") in LOOPBACK:
        # Gloo would look for the address of the host's name, which a laptop need not have.
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo0" if sys.platform == "darwin" else "lo")
    timeout = timedelta(seconds=timeout_s * TIMEOUT_FACTOR)
    if device.type == "cuda":
        dist.init_process_group("nccl", timeout=timeout, device_id=device)
    else:
        dist.init_process_group("gloo", timeout=timeout)
    return World(rank, size, local_rank, device, dist.new_group(backend="gloo", timeout=timeout))


def leave_world(world: World) -> None:
    """Let the connections go, at the end of a training that went well."""
    if world.size > 1:
        dist.destroy_process_group()


def ranks_per_host() -> int:
    """Return how many ranks one host runs: one for each GPU, or one. Raises StepError where its GPUs do not work."""
    return gpu_count() or 1


def _share_threads(environment: Mapping[str, str]) -> None:
    if "OMP_NUM_THREADS" not in environment:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        torch.set_num_threads(max(1, cores // int(environment.get("LOCAL_WORLD_SIZE", "1"))))


class LostRankError(StepError):
    """Another rank is gone: its own error is the cause."""


class RankError(Model):
    rank: int
    """Of all ranks."""
    message: str
    """One line."""
    timestamp: int
    """Seconds since 1970; torchrun reads it."""
    time_s: float
    """The same, finer."""
    is_consequence: bool
    """Whether another rank caused it."""


def record_error(error: BaseException | str, environment: Mapping[str, str]) -> None:
    """Write the reason to the launcher's error file, and print it."""
    message = str(error) if isinstance(error, (str, StepError)) else f"{type(error).__name__}: {error}"
    rank, path = int(environment.get("RANK", "0")), environment.get(ERROR_FILE_VARIABLE)
    print(f"rank {rank}: {message}", file=sys.stderr, flush=True)
    if not path:
        return
    now_s = time.time()
    recorded = RankError(
        rank=rank,
        message=" ".join(message.split()),
        timestamp=int(now_s),
        time_s=now_s,
        is_consequence=isinstance(error, LostRankError),
    )
    Path(path).write_text(recorded.model_dump_json(), encoding="utf-8")


def end_process(reason: str | LostRankError) -> None:
    """End this process at once, from any thread: a hanging collective cannot be interrupted."""
    record_error(reason, os.environ)
    sys.stdout.flush()
    os._exit(1)


def first_error(folder: Path) -> RankError | None:
    """Return the first error of this host's ranks, preferably one that no other rank caused."""
    errors: list[RankError] = []
    for path in folder.rglob(ERROR_FILE):
        try:
            errors.append(RankError.model_validate_json(path.read_bytes()))
        except (OSError, ValueError):
            continue
    return min(errors, key=lambda error: (error.is_consequence, error.time_s), default=None)
