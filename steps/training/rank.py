"""One rank of a training job: joins the others, trains, and turns what can go wrong into one clear line.

`python -m steps train` runs it: in its own process where there is one rank, under torchrun otherwise.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final

from params.programs import TrainArguments
from steps.container import Container
from steps.training.batch_plan import batch_plan
from steps.training.objective import resolved_precision
from steps.training.rank_errors import LostRankError, end_process
from steps.training.ranks import World, join_world, leave_world
from steps.training.session import Session
from steps.training.stop import StopVote, asked_by_signals
from steps.training.sweep import Sweep
from steps.training.watchdog import Watchdog

# What gloo, NCCL and the store say when another rank went away.
_LOST: Final = ("connection closed", "connection reset", "broken pipe", "connection refused", "nccl", "timed out")


def run_rank(arguments: TrainArguments, container: Container, environment: Mapping[str, str] = os.environ) -> int:
    """Train as the rank that the environment says; return the exit status.

    Raises StepError, and LostRankError where the cause lies with another rank.
    """
    world = join_world(environment, arguments.collective_timeout_s)
    precision = world.broadcast_json(resolved_precision(arguments.precision, world.device))
    arguments = arguments.model_copy(update={"precision": precision})
    watchdog = Watchdog(world, arguments.collective_timeout_s, end_process, environment)
    try:
        if arguments.throughput_micro_batch_sizes:
            status = Sweep(arguments, container, world, watchdog.beat).run()
        else:
            status = _train(arguments, container, world, watchdog)
    except RuntimeError as error:
        if any(words in str(error).lower() for words in _LOST):
            raise LostRankError(f"rank {world.rank} lost the others: {' '.join(str(error).split())[:300]}") from error
        raise
    finally:
        watchdog.stop()
    leave_world(world)
    return status


def _train(arguments: TrainArguments, container: Container, world: World, watchdog: Watchdog) -> int:
    plan = batch_plan(arguments.global_batch_size, arguments.micro_batch_size, world.size)
    vote = StopVote(world)
    with asked_by_signals(vote):
        return Session(arguments, plan, container, world, watchdog, vote).run()
