"""Encodes latents shards on Ray Data: decoding on CPUs streams into encoders on GPUs, or on cores.

Reads verified shards, writes latents and reference shards, all from Ray's workers: what passes through this process are
references. A worker that dies costs its blocks another try.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

import ray.data

from steps.data.encoding.decoding import ShardsSource, decode_span, spans
from steps.data.encoding.encoder_settings import EncoderSettings
from steps.data.encoding.latents_artifact import LatentsRecord, write_shard
from steps.data.encoding.plan import PlannedShard, Selection, SourceSummary, summarize
from steps.data.encoding.reference import SAMPLES_PER_SHARD, write_reference_shard
from steps.data.encoding.samples import read_table
from steps.data.storage import Storage
from steps.errors import StepError

# Shards for one run of Ray Data's executor, which holds every task of a run in memory.
SHARDS_PER_RUN: Final = 1000
SOURCES_PER_TASK: Final = 16
WRITES_PER_HOST: Final = 4
# Shares of a core: on hosts without GPU, decoding runs inside the encoders and other tasks need a place beside them.
ENCODER_CPUS: Final = 0.5
TASK_CPUS: Final = 0.25
WRITE_TRIES: Final = 4


@dataclass(frozen=True)
class EncodeJob:
    """What the workers are told."""

    source: ShardsSource
    encoder: EncoderSettings
    latents_uri: str
    plan_digest: str
    workers: int
    """Encoders; 0: one for each GPU, or one for each core where there is none."""


def summarize_sources(shards_uri: str, names: Sequence[str], selection: Selection) -> list[SourceSummary]:
    """Return what planning needs to know of each verified shard, in order."""
    task = ray.remote(num_cpus=TASK_CPUS)(_summarize)
    parts = [names[start : start + SOURCES_PER_TASK] for start in range(0, len(names), SOURCES_PER_TASK)]
    tasks = [task.remote(shards_uri, part, selection) for part in parts]
    return [summary for part in results(tasks) for summary in part]


def encode_shards(
    job: EncodeJob, shards: Sequence[PlannedShard], on_rows: Callable[[int], None]
) -> Iterator[LatentsRecord]:
    """Yield the records of written shards; `on_rows` hears how many more rows are encoded. Raises StepError."""
    for start in range(0, len(shards), SHARDS_PER_RUN):
        part = shards[start : start + SHARDS_PER_RUN]
        try:
            yield from _encode_run(job, part, on_rows)
        except ray.exceptions.RayError as error:
            raise step_error(error) from error


def write_reference(job: EncodeJob, reference_uri: str) -> list[Any]:
    """Start writing the held-out pictures; return the tasks, of a ReferenceShard each."""
    task = ray.remote(num_cpus=TASK_CPUS, max_retries=WRITE_TRIES, retry_exceptions=[OSError])(write_reference_shard)
    source = ray.put(job.source)
    shards = -(-len(job.source.plan.heldout) // SAMPLES_PER_SHARD)
    return [task.remote(reference_uri, source, index) for index in range(shards)]


def _encode_run(
    job: EncodeJob, shards: Sequence[PlannedShard], on_rows: Callable[[int], None]
) -> Iterator[LatentsRecord]:
    write = ray.remote(num_cpus=TASK_CPUS, max_retries=WRITE_TRIES, retry_exceptions=[OSError])(_write)
    limit = WRITES_PER_HOST * len(ray.nodes())
    writing: list[Any] = []
    for shard, blocks in _by_shard(_dataset(job, shards).iter_internal_ref_bundles(), shards, on_rows):
        writing.append(write.remote(job.latents_uri, job.plan_digest, shard, *blocks))
        while len(writing) >= limit:
            done, writing = ray.wait(writing)
            yield from results(done)
    yield from results(writing)


def _dataset(job: EncodeJob, shards: Sequence[PlannedShard]) -> Any:
    # Only encoders and this process import torch, not each worker that has heard of them.
    from steps.data.encoding.encoder import BlockEncoder

    context = ray.data.DataContext.get_current()
    # Shards are written in order, from references alone: who encodes what, and when, changes nothing.
    context.execution_options.preserve_order = True
    context.raise_original_map_exception = True
    tasks = list(spans(list(shards), job.source.plan.selection.buckets))
    workers, gpus = workers_of(job.workers)
    decoded = ray.data.from_items(tasks, override_num_blocks=len(tasks)).flat_map(
        decode_span, fn_kwargs={"source": job.source}, num_cpus=1 if gpus else ENCODER_CPUS
    )
    return decoded.map(
        BlockEncoder,
        fn_constructor_args=(job.encoder,),
        compute=ray.data.ActorPoolStrategy(size=min(workers, len(tasks))),
        num_cpus=ENCODER_CPUS,
        num_gpus=1 if gpus else None,
    )


def workers_of(asked: int) -> tuple[int, int]:
    """Return how many workers with a model the cluster gets, and its GPUs: one for each GPU, else one for each core."""
    resources = ray.cluster_resources()
    gpus = int(resources.get("GPU", 0))
    return asked or gpus or int(resources["CPU"]), gpus


def _by_shard(
    bundles: Iterator[Any], shards: Sequence[PlannedShard], on_rows: Callable[[int], None]
) -> Iterator[tuple[PlannedShard, list[Any]]]:
    """Yield each shard with the references that hold its blocks; one may hold the end of a shard and more."""
    block_rows = [rows for shard in shards for rows in shard.block_rows]
    waiting, held, seen, needed, arrived = iter(shards), list[Any](), 0, 0, 0
    shard = next(waiting)
    needed = len(shard.block_rows)
    for bundle in bundles:
        for entry in bundle.blocks:
            count = int(entry.metadata.num_rows)
            on_rows(sum(islice(block_rows, arrived, arrived + count)))
            arrived += count
            held.append(entry.ref)
            seen += count
            while seen >= needed:
                yield shard, held
                seen -= needed
                held = [entry.ref] if seen else []
                following = next(waiting, None)
                if following is None:
                    return
                shard, needed = following, len(following.block_rows)
    raise StepError(f"encode: {arrived} of {len(block_rows)} blocks arrived")


def _summarize(uri: str, names: Sequence[str], selection: Selection) -> list[SourceSummary]:
    storage = Storage(uri)
    return [summarize(read_table(storage, name, selection.min_original_px), selection) for name in names]


def _write(uri: str, plan_digest: str, shard: PlannedShard, *tables: Any) -> LatentsRecord:
    rows = (row for table in tables for row in table.to_pylist())
    return write_shard(Storage(uri), plan_digest, shard, rows)


def results(tasks: list[Any]) -> Any:
    """Wait for tasks. Raises StepError with a worker's own words where it gave up."""
    try:
        return ray.get(tasks)
    except ray.exceptions.RayError as error:
        raise step_error(error) from error


def step_error(error: BaseException) -> StepError:
    """Return what a worker said, out of the errors that Ray wrapped it in."""
    pending: list[BaseException | None] = [error]
    while pending:
        inner = pending.pop()
        if inner is None:
            continue
        if isinstance(inner, StepError) and not isinstance(inner, ray.exceptions.RayError):
            return inner
        pending += [getattr(inner, "cause", None), inner.__cause__]
    return StepError(f"ray: {' '.join(str(error).split())[-500:]}")
