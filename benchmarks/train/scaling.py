"""From one rank to two on this machine: the same work for each rank, over DDP.

    python -m benchmarks.train.scaling FOLDER ...     # one rank, as torchrun starts it

Each rank has one core, or one GPU. Ranks are processes of their own, so the first is measured as one, too: one rank
alone, then two, in turns. Both efficiencies are (two ranks) / (2 x one rank): `ddp_efficiency` by the clock on the
wall, which needs a core of its own for each rank to mean anything; `ddp_cpu_efficiency` by the ranks' own CPU time,
which tells what sending and adding up costs, and not how long the ranks wait for each other or for a core.
"""

from __future__ import annotations

import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from benchmarks.train.contest import elapsed_s, steps_for
from benchmarks.train.ours import ours
from benchmarks.train.task import Task
from steps.training.ranks import join_world, leave_world

RESULT: Final = "RESULT "
TIMEOUT_S: Final = 600.0


@dataclass(frozen=True)
class Speed:
    """Of one rank, or of all together."""

    images_per_s: float
    images_per_cpu_s: float


def scaling(task: Task, rounds: int, turn_s: float) -> dict[str, Any]:
    """Return images/s of one rank and of two, and the efficiencies: medians over the rounds."""
    found: dict[int, list[Speed]] = {1: [], 2: []}
    for _ in range(rounds):
        for ranks in found:
            found[ranks].append(_run(task, ranks, turn_s))
    return {
        "images_per_s_1_rank": statistics.median(speed.images_per_s for speed in found[1]),
        "images_per_s_2_ranks": statistics.median(speed.images_per_s for speed in found[2]),
        "ddp_efficiency": _efficiency(found, lambda speed: speed.images_per_s),
        "ddp_cpu_efficiency": _efficiency(found, lambda speed: speed.images_per_cpu_s),
    }


def _efficiency(found: dict[int, list[Speed]], of: Callable[[Speed], float]) -> float:
    return statistics.median(of(two) / (2 * of(one)) for one, two in zip(found[1], found[2], strict=True))


def _run(task: Task, ranks: int, turn_s: float) -> Speed:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    values = asdict(task) | {name: str(getattr(task, name)) for name in ("pretrained", "pictures", "latents", "device")}
    command = [sys.executable, "-m", "benchmarks.train.scaling", json.dumps(values), str(turn_s)]
    environments = [
        os.environ
        | {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks), "LOCAL_WORLD_SIZE": str(ranks)}
        | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
        for rank in range(ranks)
    ]
    processes = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) for environment in environments]
    try:
        outputs = [process.communicate(timeout=TIMEOUT_S)[0].decode() for process in processes]
    finally:
        for process in processes:
            process.kill()
    if any(process.returncode for process in processes):
        raise SystemExit("error: a rank of the scaling run failed; its message is above")
    lines = [line for output in outputs for line in output.splitlines() if line.startswith(RESULT)]
    speeds = [Speed(**json.loads(line.removeprefix(RESULT))) for line in lines]
    return Speed(sum(speed.images_per_s for speed in speeds), sum(speed.images_per_cpu_s for speed in speeds))


def main(argv: list[str]) -> int:
    """Be one rank."""
    values = json.loads(argv[0])
    folders = {name: Path(values[name]) for name in ("pretrained", "pictures", "latents")}
    world = join_world(os.environ, TIMEOUT_S)
    task = replace(Task(**values | folders), device=world.device)
    with ours(task, world) as step:
        steps = world.broadcast_json(steps_for(step, float(argv[1]), world.device))
        cpu_s = time.process_time()
        wall_s = elapsed_s(step, steps, world.device, time.perf_counter)
        cpu_s = time.process_time() - cpu_s
    images = steps * task.batch_size
    print(RESULT + json.dumps(asdict(Speed(images / wall_s, images / cpu_s))), flush=True)
    leave_world(world)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
