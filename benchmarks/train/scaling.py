"""From one rank to two on this machine: the same work for each rank, over DDP.

    python -m benchmarks.train.scaling FOLDER ...     # one rank, as torchrun starts it

Each rank has one core, or one GPU. Ranks are processes of their own, so the first is measured as one, too: one rank
alone, then two, in turns. On a CPU the seconds are the process's own: what waits for a core that others use is left out,
and so is waiting for the other rank; what sending and adding up costs is in it.
"""

from __future__ import annotations

import json
import os
import socket
import statistics
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

from benchmarks.train.contest import timed
from benchmarks.train.ours import steps_of
from benchmarks.train.task import Task
from steps.training.ranks import join_world, leave_world

RESULT: Final = "RESULT "
TIMEOUT_S: Final = 600.0


def scaling(task: Task, rounds: int, turn_s: float) -> dict[str, Any]:
    """Return images/s of one rank and of two, and the efficiency: (two ranks) / (2 x one rank)."""
    found: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(rounds):
        for ranks in found:
            found[ranks].append(_run(task, ranks, turn_s))
    efficiencies = [two / (2 * one) for one, two in zip(found[1], found[2], strict=True)]
    return {
        "images_per_s_1_rank": statistics.median(found[1]),
        "images_per_s_2_ranks": statistics.median(found[2]),
        "ddp_efficiency": statistics.median(efficiencies),
        "rounds": efficiencies,
    }


def _run(task: Task, ranks: int, turn_s: float) -> float:
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
    # A step ends for all ranks together.
    return ranks * min(float(line.removeprefix(RESULT)) for line in lines)


def main(argv: list[str]) -> int:
    """Be one rank."""
    values = json.loads(argv[0])
    folders = {name: Path(values[name]) for name in ("pretrained", "pictures", "latents")}
    world = join_world(os.environ, TIMEOUT_S)
    task = replace(Task(**values | folders), device=world.device)
    with steps_of(task, world) as step:
        images_per_s = timed(step, task, float(argv[1]), agree=world.broadcast_json)
    print(f"{RESULT}{images_per_s}", flush=True)
    leave_world(world)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
