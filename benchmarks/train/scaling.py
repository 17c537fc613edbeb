"""From one rank to two on this machine: the same work for each rank, over DDP.

    python -m benchmarks.train.scaling FOLDER ...     # one rank, as torchrun starts it

Each rank has one core, or one GPU. Every rank is a process of its own, a single one as well: one rank alone and
two together take turns. Both efficiencies are (two ranks) / (2 x one rank): `ddp_efficiency` by the clock on the
wall, which needs a core of its own for each rank to mean anything; `ddp_cpu_efficiency` by the ranks' own CPU time,
which tells what sending and adding up costs, but not how long the ranks wait for each other or for a core.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from benchmarks.harness import free_port, median_ratio, take_turns
from benchmarks.train.contest import elapsed_s, steps_for
from benchmarks.train.ours import ours
from benchmarks.train.task import Task
from steps.training.ranks import join_world, leave_world

RESULT: Final = "RESULT "
TIMEOUT_S: Final = 600.0


@dataclass(frozen=True)
class Speed:
    """Speed of one rank, or of all together."""

    images_per_s: float
    images_per_cpu_s: float


def scaling(task: Task, rounds: int, turn_s: float) -> dict[str, Any]:
    """Return images/s of one rank and of two, and the efficiencies: medians over the rounds."""
    sides = {str(ranks): partial(_run, task, ranks, turn_s) for ranks in (1, 2)}
    one, two = take_turns(sides, rounds).values()
    return {
        "images_per_s_1_rank": statistics.median(speed.images_per_s for speed in one),
        "images_per_s_2_ranks": statistics.median(speed.images_per_s for speed in two),
        "ddp_efficiency": median_ratio([s.images_per_s for s in two], [2 * s.images_per_s for s in one]),
        "ddp_cpu_efficiency": median_ratio([s.images_per_cpu_s for s in two], [2 * s.images_per_cpu_s for s in one]),
    }


def _run(task: Task, ranks: int, turn_s: float, _: int) -> Speed:
    port = free_port()
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
