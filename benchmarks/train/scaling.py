"""From one rank to two on this machine: the same work for each rank, over DDP.

Each rank has one core, or one GPU. Every rank is a process of its own, a single one as well: one rank alone and
two together take turns. Both efficiencies are (two ranks) / (2 x one rank): `ddp_efficiency` by the clock on the
wall, which needs a core of its own for each rank to mean anything; `ddp_cpu_efficiency` by the ranks' own CPU time,
which tells what sending and adding up costs, but not how long the ranks wait for each other or for a core.
"""

from __future__ import annotations

import os
import statistics
import time
from dataclasses import replace
from functools import partial
from typing import Any, Final

from benchmarks.harness import free_port, in_new_processes, median_ratio, take_turns
from benchmarks.train.contest import Task, elapsed_s, steps_for
from benchmarks.train.ours import ours
from steps.training.ranks import join_world, leave_world

TIMEOUT_S: Final = 600.0


# Images/s by the clock on the wall, and for each CPU-second: of one rank, or of all together.
Speed = tuple[float, float]


def scaling(task: Task, rounds: int, turn_s: float) -> dict[str, Any]:
    """Return images/s of one rank and of two, and the efficiencies: medians over the rounds."""
    sides = {str(ranks): partial(_run, task, ranks, turn_s) for ranks in (1, 2)}
    one, two = take_turns(sides, rounds).values()
    return {
        "images_per_s_1_rank": statistics.median(wall for wall, _ in one),
        "images_per_s_2_ranks": statistics.median(wall for wall, _ in two),
        "ddp_efficiency": median_ratio([wall for wall, _ in two], [2 * wall for wall, _ in one]),
        "ddp_cpu_efficiency": median_ratio([cpu for _, cpu in two], [2 * cpu for _, cpu in one]),
    }


def _run(task: Task, ranks: int, turn_s: float, _: int) -> Speed:
    environment = {"WORLD_SIZE": str(ranks), "LOCAL_WORLD_SIZE": str(ranks), "OMP_NUM_THREADS": "1"}
    environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    speeds = in_new_processes(_be_rank, [(task, turn_s, rank) for rank in range(ranks)], **environment)
    return sum(wall for wall, _ in speeds), sum(cpu for _, cpu in speeds)


def _be_rank(task: Task, turn_s: float, rank: int) -> Speed:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
    world = join_world(os.environ, TIMEOUT_S)
    task = replace(task, device=world.device)
    with ours(task, world) as step:
        steps = world.broadcast_json(steps_for(step, turn_s, world.device))
        cpu_s = time.process_time()
        wall_s = elapsed_s(step, steps, world.device, time.perf_counter)
        cpu_s = time.process_time() - cpu_s
    leave_world(world)
    images = steps * task.batch_size
    return images / wall_s, images / cpu_s
