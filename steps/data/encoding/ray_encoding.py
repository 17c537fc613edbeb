"""Encodes shards of latents or descriptors on Ray Data: decoding on CPUs streams into encoders on GPUs, or cores.

Reads verified shards, writes latents and reference shards, all from Ray's workers: what passes through this process are
references. A worker that dies costs its blocks another try.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Final

import ray.data

from steps.data.encoding.decoding import ShardsSource, decode_span, spans
from steps.data.encoding.descriptors import DescriptorsRecord, write_descriptors
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
    uri: str
    """Where the shards of latents, or of descriptors, go."""
    plan_digest: str
    workers: int
    """Encoders; 0: one for each GPU, or one for each core where there is none."""
    describes: bool = False
    """Whether it makes descriptors, by the model of the encoder's features; else latents."""


def summarize_sources(shards_uri: str, names: Sequence[str], selection: Selection) -> list[SourceSummary]:
    """Return what planning needs to know of each verified shard, in order."""
    task = ray.remote(num_cpus=TASK_CPUS)(_summarize)
    parts = [names[start : start + SOURCES_PER_TASK] for start in range(0, len(names), SOURCES_PER_TASK)]
    tasks = [task.remote(shards_uri, part, selection) for part in parts]
    return [summary for part in results(tasks) for summary in part]


def encode_shards(job: EncodeJob, shards: Sequence[PlannedShard], on_rows: Callable[[int], None]) -> Iterator[Any]:
    """Yield the records of written files; `on_rows` hears how many more rows are encoded. Raises StepError."""
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
) -> Iterator[LatentsRecord | DescriptorsRecord]:
    write = ray.remote(num_cpus=TASK_CPUS, max_retries=WRITE_TRIES, retry_exceptions=[OSError])(_write)
    whole = _by_shard(_dataset(job, shards).iter_internal_ref_bundles(), shards, on_rows)
    maker = write_descriptors if job.describes else write_shard
    tasks = (write.remote(maker, job.uri, job.plan_digest, shard, *blocks) for shard, blocks in whole)
    yield from few_at_once(tasks, WRITES_PER_HOST * len(ray.nodes()))


def few_at_once(tasks: Iterator[Any], limit: int) -> Iterator[Any]:
    """Yield what tasks return, in the order in which they end; at most `limit` of them are under way."""
    waiting: list[Any] = []
    for task in tasks:
        waiting.append(task)
        while len(waiting) >= limit:
            done, waiting = ray.wait(waiting)
            yield from results(done)
    yield from results(waiting)


def _dataset(job: EncodeJob, shards: Sequence[PlannedShard]) -> Any:
    # Only encoders and this process import torch, not each worker that has heard of them.
    from steps.data.encoding.encoder import BlockDescriber, BlockEncoder

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
        BlockDescriber if job.describes else BlockEncoder,
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
    ends = accumulate(len(shard.block_rows) for shard in shards)
    waiting, held, arrived = deque(zip(shards, ends, strict=True)), list[Any](), 0
    for entry in (entry for bundle in bundles for entry in bundle.blocks):
        count = int(entry.metadata.num_rows)
        on_rows(sum(block_rows[arrived : arrived + count]))
        arrived += count
        held.append(entry.ref)
        while waiting and arrived >= waiting[0][1]:
            shard, end = waiting.popleft()
            yield shard, held
            held = [entry.ref] if arrived > end else []
    if waiting:
        raise StepError(f"encode: {arrived} of {len(block_rows)} blocks arrived")


def _summarize(uri: str, names: Sequence[str], selection: Selection) -> list[SourceSummary]:
    storage = Storage(uri)
    return [summarize(read_table(storage, name, selection.min_original_px), selection) for name in names]


def _write(write: Callable[..., Any], uri: str, plan_digest: str, shard: PlannedShard, *tables: Any) -> Any:
    rows = (row for table in tables for row in table.to_pylist())
    return write(Storage(uri), plan_digest, shard, rows)


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
