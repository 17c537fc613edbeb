"""One training job on this host: its settings, and its ranks; what `train` and `throughput` share.

A rank joins the others, trains, and turns what can go wrong into one clear line: in this process where there is one
rank, under torchrun otherwise.
"""

import json
import os
import traceback
from collections.abc import Mapping, Sequence
from typing import Final

from params.arguments import ArgumentError, from_texts
from params.layout import ENCODERS_GROUP, LATENTS_CHANNEL, PRETRAINED_CHANNEL, TRAINERS_GROUP
from params.programs import TrainArguments
from steps.container import Cluster, Container
from steps.data.loading.lustre import wait_for_files, warm_in_background
from steps.errors import StepError
from steps.training.launch import is_rank, launch_ranks
from steps.training.model import keep_compiled
from steps.training.objective import resolved_precision
from steps.training.online import encoders, lend_encoder
from steps.training.optimizer_step import batch_plan
from steps.training.ranks import LostRankError, end_process, join_world, leave_world, ranks_per_host, record_error
from steps.training.session import Session
from steps.training.starting_weights import check_starting_weights, initial_folder, unpack_initial_model
from steps.training.stop import StopVote, asked_by_signals
from steps.training.sweep import Sweep
from steps.training.watchdog import Watchdog

# What gloo, NCCL and the store say when another rank went away.
_LOST: Final = ("connection closed", "connection reset", "broken pipe", "connection refused", "nccl", "timed out")


def run_job(arguments: TrainArguments, argv: Sequence[str], container: Container) -> int:
    """Run the ranks of this host, each with ARGV, or be one of them where torchrun started this process."""
    if is_rank(os.environ):
        return _run_as_rank(arguments, container)
    cluster = container.cluster()
    if arguments.shards_uri and cluster.current_host in cluster.groups.get(ENCODERS_GROUP, ()):
        lend_encoder(arguments, container, cluster)
        return 0
    # A host without the GPUs that it should have says so before it waits for anything.
    ranks = ranks_per_host()
    if not arguments.latents_uri:
        wait_for_files(container.channel_dir(LATENTS_CHANNEL), arguments.latents_wait_s)
    if not arguments.shards_uri:
        return _run_host(arguments, argv, container, cluster, ranks)
    with encoders(arguments, container):
        return _run_host(arguments, argv, container, cluster.of_groups(TRAINERS_GROUP), ranks)


def _run_host(
    arguments: TrainArguments, argv: Sequence[str], container: Container, cluster: Cluster, ranks: int
) -> int:
    """Run this host's ranks among those of a cluster."""
    keep_compiled(arguments, container)
    unpack_initial_model(arguments, container)
    initial, pretrained = initial_folder(arguments, container), container.channel_dir(PRETRAINED_CHANNEL)
    check_starting_weights(arguments, initial, pretrained)
    world_size = len(cluster.hosts) * ranks
    if not arguments.throughput_micro_batch_sizes:
        # Said by the launcher, before any rank starts.
        batch_plan(arguments.global_batch_size, arguments.micro_batch_size, world_size)
    if arguments.warm_latents and not arguments.latents_uri:
        warm_in_background(container.channel_dir(LATENTS_CHANNEL), cluster)
    if world_size == 1:
        return run_rank(arguments, container)
    return launch_ranks(argv, cluster, ranks, container.job_name, arguments.host_wait_s)


def hyperparameters(container: Container) -> TrainArguments:
    """Return the settings that SageMaker passes; its own (`_tuning_objective_metric`, `sagemaker_...`) are not ours."""
    given = container.hyperparameters().items()
    texts = {name: _unquoted(text) for name, text in given if not name.startswith(("_", "sagemaker_"))}
    try:
        return from_texts(TrainArguments, texts, "hyperparameters.json")
    except ArgumentError as error:
        raise StepError(str(error)) from None


def _unquoted(text: str) -> str:
    """Return what a tuner's categorical value means: some SDK versions pass them as JSON strings."""
    return str(json.loads(text)) if len(text) > 1 and text[0] == text[-1] == '"' else text


def _run_as_rank(arguments: TrainArguments, container: Container) -> int:
    try:
        return run_rank(arguments, container)
    except Exception as error:
        # The launcher writes the job's failure file, once it knows which rank's error was the first.
        if not isinstance(error, StepError):
            traceback.print_exc()
        record_error(error, os.environ)
        return 1


def run_rank(arguments: TrainArguments, container: Container, environment: Mapping[str, str] = os.environ) -> int:
    """Train as the environment's rank; return the exit status. Raises StepError, LostRankError for another's fault."""
    world = join_world(environment, arguments.collective_timeout_s)
    precision = world.broadcast_json(resolved_precision(arguments.precision, world.device))
    arguments = arguments.model_copy(update={"precision": precision})
    watchdog = Watchdog(world, arguments.collective_timeout_s, end_process, environment)
    try:
        if arguments.throughput_micro_batch_sizes:
            status = Sweep(arguments, container, world, watchdog.beat).run()
        else:
            plan, vote = (
                batch_plan(arguments.global_batch_size, arguments.micro_batch_size, world.size),
                StopVote(world),
            )
            with asked_by_signals(vote):
                status = Session(arguments, plan, container, world, watchdog, vote).run()
    except RuntimeError as error:
        if any(words in str(error).lower() for words in _LOST):
            raise LostRankError(f"rank {world.rank} lost the others: {' '.join(str(error).split())[:300]}") from error
        raise
    finally:
        watchdog.stop()
    leave_world(world)
    return status
