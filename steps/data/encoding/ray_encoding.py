"""Encodes shards of latents or descriptors on Ray: readers deal samples out to blocks, encoders decode and encode them.

Reads each verified shard once, writes latents and reference shards, all from Ray's workers: what passes through this
process are references, those of what is under way. Encoders stay up over the whole run; one that dies costs its blocks
another try.
"""

from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, repeat
from threading import Lock
from typing import Any, Final

import numpy as np
import ray

from params.layout import TRAIN_SPLIT
from steps.data.encoding.decoding import ShardsSource, deal, decode
from steps.data.encoding.descriptors import DescriptorsRecord, write_descriptors
from steps.data.encoding.encoder_settings import EncoderSettings
from steps.data.encoding.latents_artifact import EncodedBlock, LatentsRecord, write_shard
from steps.data.encoding.plan import Block, Part, PlannedShard, Selection, SourceSummary, summarize
from steps.data.encoding.reference import SAMPLES_PER_SHARD, write_reference_shard
from steps.data.encoding.samples import Sample, read_table
from steps.data.storage import Storage
from steps.errors import StepError

SOURCES_PER_TASK: Final = 16
# For each GPU, or each host without: one reads some 1,000 pictures/s.
READS_AT_ONCE: Final = 2
# What a reader may be ahead: the numbers and the samples of two parts of blocks.
READ_AHEAD_OBJECTS: Final = 4
# One is encoded, one decoded, and one is on its way.
BLOCKS_PER_ENCODER: Final = 3
# Shares of a core: on hosts without GPU, decoding runs inside the encoders and other tasks need a place beside them.
ENCODER_CPUS: Final = 0.5
TASK_CPUS: Final = 0.25
TRIES: Final = 4


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
    try:
        yield from _Flow(job, shards, on_rows).records() if shards else ()
    except ray.exceptions.RayError as error:
        raise step_error(error) from error


def write_reference(job: EncodeJob, reference_uri: str) -> list[Any]:
    """Start writing the held-out pictures; return the tasks, of a ReferenceShard each."""
    task = ray.remote(num_cpus=TASK_CPUS, max_retries=TRIES, retry_exceptions=[OSError])(write_reference_shard)
    source = ray.put(job.source)
    shards = -(-len(job.source.plan.heldout) // SAMPLES_PER_SHARD)
    return [task.remote(reference_uri, source, index) for index in range(shards)]


class EncoderActor:
    """An encoder and its decoders, as a Ray actor: it decodes a block while it encodes another."""

    def __init__(self, job: EncodeJob, threads: int) -> None:
        """Load the models."""
        # Only encoders import torch, not each process that has heard of them.
        from steps.data.encoding.encoder import BlockDescriber, BlockEncoder

        self._encode = (BlockDescriber if job.describes else BlockEncoder)(job.encoder)
        self._sizes, self._has_written = job.source.plan.selection.buckets.sizes, bool(job.source.captions_uri)
        self._threads, self._turn = ThreadPoolExecutor(threads), Lock()

    def encode(self, shard: PlannedShard, number: int, *parts: list[Sample]) -> tuple[int, EncodedBlock]:
        """Return how many rows a block of a shard has, and the block. Raises StepError for what is no picture."""
        samples = list(chain.from_iterable(parts))
        pixels = np.stack(list(self._threads.map(decode, samples, repeat(self._sizes[shard.bucket]))))
        has_written = self._has_written and shard.split == TRAIN_SPLIT
        captions, written = [one.caption for one in samples], [one.written for one in samples] if has_written else []
        with self._turn:
            return len(samples), self._encode((shard.name, number), pixels, captions, written)


class _Flow:
    """What is read, waits, is encoded and is written at the moment: references alone, and no more than is under way."""

    def __init__(self, job: EncodeJob, shards: Sequence[PlannedShard], on_rows: Callable[[int], None]) -> None:
        self._shards, self._on_rows = {shard.name: shard for shard in shards}, on_rows
        self._told, self._sources = ray.put(job), job.source.plan.dealt(shards)
        workers, gpus = workers_of(job.workers)
        self._reads_at_once = READS_AT_ONCE * max(gpus, len(ray.nodes()))
        self._encoders = _start_encoders(self._told, min(workers, sum(len(shard.block_rows) for shard in shards)), gpus)
        spread = {"max_retries": TRIES, "scheduling_strategy": "SPREAD"}
        reads = {"num_returns": "streaming", "_generator_backpressure_num_objects": READ_AHEAD_OBJECTS}
        self._deal = ray.remote(num_cpus=TASK_CPUS / READS_AT_ONCE, **reads, **spread)(_deal)
        self._write = ray.remote(num_cpus=TASK_CPUS, retry_exceptions=[OSError], **spread)(_write)
        self._asked = [0] * len(self._encoders)
        self._reads: dict[Any, dict[int, tuple[Block, Part]]] = {}
        """The parts that each has yet to yield."""
        self._parts: dict[Block, dict[Part, Any]] = defaultdict(dict)
        self._whole: deque[Block] = deque()
        """Blocks whose parts are all there."""
        self._encodes: dict[Any, tuple[int, Block, Any]] = {}
        """Encoder, block and what it will be, by the reference of its rows."""
        self._blocks: dict[str, dict[int, Any]] = defaultdict(dict)
        self._writes: set[Any] = set()

    def records(self) -> Iterator[Any]:
        """Yield the record of each file when it is written."""
        while waiting := self._start():
            ray.wait(waiting, fetch_local=False)
            for one in ray.wait(waiting, num_returns=len(waiting), timeout=0, fetch_local=False)[0]:
                if one in self._reads:
                    self._take_part(one)
                elif one in self._encodes:
                    self._take_block(one)
                else:
                    self._writes.remove(one)
                    yield ray.get(one)

    def _start(self) -> list[Any]:
        """Start what has a place; return what is waited for."""
        while len(self._reads) < self._reads_at_once and (parts := next(self._sources, None)):
            reading = self._deal.remote(self._told, [part for _, part in parts])
            self._reads[reading] = dict(enumerate(parts))
        while self._whole and min(self._asked) < BLOCKS_PER_ENCODER:
            self._encode(*self._whole.popleft())
        # Readers wait where encoders have enough to do.
        reads = self._reads if len(self._whole) < len(self._encoders) else ()
        return [*self._writes, *self._encodes, *reads]

    def _encode(self, name: str, number: int) -> None:
        chosen = self._asked.index(min(self._asked))
        self._asked[chosen] += 1
        # The rows of a block are in the order of their sources.
        parts = (samples for _, samples in sorted(self._parts.pop((name, number)).items()))
        encode = self._encoders[chosen].encode.options(num_returns=2)
        rows, content = encode.remote(self._shards[name], number, *parts)
        self._encodes[rows] = (chosen, (name, number), content)

    def _take_part(self, reading: Any) -> None:
        # A reader that is lost ends early: then its completion has the error.
        block, part = self._reads[reading].pop(ray.get(next(reading, reading.completed())))
        self._parts[block][part] = next(reading)
        if not self._reads[reading]:
            del self._reads[reading]
        if sum(one.rows for one in self._parts[block]) == self._shards[block[0]].block_rows[block[1]]:
            self._whole.append(block)

    def _take_block(self, rows: Any) -> None:
        chosen, (name, number), content = self._encodes.pop(rows)
        self._asked[chosen] -= 1
        self._on_rows(ray.get(rows))
        self._blocks[name][number] = content
        if len(self._blocks[name]) == len(self._shards[name].block_rows):
            contents = (content for _, content in sorted(self._blocks.pop(name).items()))
            self._writes.add(self._write.remote(self._told, self._shards[name], *contents))


def _start_encoders(job: Any, count: int, gpus: int) -> list[Any]:
    """Start encoders for the whole run. One that dies is started again, and asked again what it was asked."""
    threads = max(1, int(ray.cluster_resources()["CPU"]) // count)
    share = {"num_cpus": ENCODER_CPUS, "num_gpus": 1 if gpus else 0, "scheduling_strategy": "SPREAD"}
    actor = ray.remote(max_concurrency=2, max_restarts=-1, max_task_retries=TRIES, **share)(EncoderActor)
    return [actor.remote(job, threads) for _ in range(count)]


def few_at_once(tasks: Iterator[Any], limit: int) -> Iterator[Any]:
    """Yield what tasks return, in the order in which they end; at most `limit` of them are under way."""
    waiting: list[Any] = []
    for task in tasks:
        waiting.append(task)
        while len(waiting) >= limit:
            done, waiting = ray.wait(waiting)
            yield from results(done)
    yield from results(waiting)


def workers_of(asked: int) -> tuple[int, int]:
    """Return how many workers with a model the cluster gets, and its GPUs: one for each GPU, else one for each core."""
    resources = ray.cluster_resources()
    gpus = int(resources.get("GPU", 0))
    return asked or gpus or int(resources["CPU"]), gpus


def _deal(job: EncodeJob, parts: Sequence[Part]) -> Iterator[Any]:
    """Yield each part's number, for the flow, and after it the samples, for an encoder."""
    for number, samples in deal(job.source, parts):
        yield number
        yield samples


def _summarize(uri: str, names: Sequence[str], selection: Selection) -> list[SourceSummary]:
    storage = Storage(uri)
    return [summarize(read_table(storage, name, selection.min_original_px), selection) for name in names]


def _write(job: EncodeJob, shard: PlannedShard, *blocks: EncodedBlock) -> LatentsRecord | DescriptorsRecord:
    write = write_descriptors if job.describes else write_shard
    return write(Storage(job.uri), job.plan_digest, shard, blocks)


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
