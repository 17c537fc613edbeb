"""Blocks of latents that encoders make while training takes them: one encoder on each GPU of the `encoders` group.

Encoders read pictures of verified shards and the channel `pretrained` of the host that they run on; nothing is written.
Tasks of Ray read and decode pictures on the encoder's own host while it encodes others. A block depends on its rows
alone, so it is the block that Encode would have written, and the loader yields what it would have read, whichever
encoder was faster. Back-pressure: each of `blocks_ahead` threads asks for a block, waits for it, and puts its rows into
the batches to come, of which there are so many; so encoders wait when training is slow, and nothing piles up.
"""

import dataclasses
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

import numpy as np
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from params.layout import PRETRAINED_CHANNEL, TRAIN_SPLIT
from steps.container import Container
from steps.data.encoding.decoding import ShardsSource, decode, planned_samples
from steps.data.encoding.encoder_settings import EncoderSettings
from steps.data.latents.block import Array, BlockError, Field
from steps.data.latents.order import MAX_LANES, Rows, SampleOrder
from steps.data.loading.blocks import MAX_LOST_FRACTION, BlockRows, Blocks, Tensors
from steps.data.loading.bucket_order import BucketStream, TrainingOrder
from steps.data.loading.loader import PREFETCHED_BATCHES, LatentsLoader, Share
from steps.errors import StepError

NAMESPACE: Final = "encoders"
WAITED_S: Final = "waited_s"
READ_TRIES: Final = 4
# Shares of a core on hosts without a GPU: decoding needs a place beside the encoders.
ENCODER_CPUS: Final = 0.5
DECODER_CPUS: Final = 0.25

Decoded = tuple[Array, list[str]]


class OnlineEncoder:
    """One encoder, as a Ray actor."""

    def __init__(self, settings: EncoderSettings, source: list[Any]) -> None:
        # Only encoders import torch, not each process that has heard of them.
        from steps.data.encoding.encoder import BlockEncoder

        pretrained = Container().channel_dir(PRETRAINED_CHANNEL)
        self._encoder = BlockEncoder(dataclasses.replace(settings, pretrained=pretrained))
        self._source, self._precision = source, settings.precision
        self._idle_since_s = time.monotonic()

    def about(self) -> tuple[str, list[Any], bool]:
        """Return the node that it runs on, the reference of its source, and whether it has a GPU."""
        context = ray.get_runtime_context()
        return context.get_node_id(), self._source, bool(context.get_accelerator_ids().get("GPU"))

    def encode(self, decoded: Decoded) -> dict[str, Array]:
        """Return a block's tensors and, as `waited_s`, the idle time before; all finite, or raises StepError."""
        waited_s = time.monotonic() - self._idle_since_s
        tensors = self._encoder.encode(*decoded)
        self._idle_since_s = time.monotonic()
        if not all(np.isfinite(tensors[name]).all() for name in ("mean", "std")):
            raise StepError(f"the VAE's moments are not finite in {self._precision}; set encode.precision to float32")
        return {**tensors, WAITED_S: np.array(waited_s)}


def decode_rows(source: ShardsSource, first_row: int, rows: int) -> Decoded:
    """Return training rows' pictures, uint8 [rows, S, S, 3], and captions. Raises StepError for one that is none."""
    samples = planned_samples(source, TRAIN_SPLIT, first_row, rows)
    size = source.plan.selection.buckets.sizes[0]
    pixels = np.stack([decode(sample, size) for sample in samples])
    return pixels, [sample.caption for sample in samples]


class Encoder(NamedTuple):
    actor: Any
    decode: Any
    """Task that decodes on the encoder's host."""
    source: Any
    """Reference of what it decodes from."""

    def ask(self, first_row: int, rows: int) -> Any:
        return self.actor.encode.remote(self.decode.remote(self.source, first_row, rows))


def start_encoders(settings: EncoderSettings, source: ShardsSource) -> int:
    """Start an encoder on each GPU of the cluster that is up, or each core where there is none; return how many.

    An encoder that dies is started again, and what it was asked for is asked again.
    """
    resources = ray.cluster_resources()
    gpus = int(resources.get("GPU", 0))
    count = gpus or int(resources.get("CPU", 0))
    if count < 1:
        raise StepError("encoders: their instance group has neither a GPU nor a core to lend")
    share = {"num_gpus": 1, "num_cpus": 0} if gpus else {"num_cpus": ENCODER_CPUS}
    actor = ray.remote(max_restarts=-1, max_task_retries=-1, **share)(OnlineEncoder)
    held = [ray.put(source)]
    actors = [
        actor.options(name=f"encoder-{number}", namespace=NAMESPACE, lifetime="detached").remote(settings, held)
        for number in range(count)
    ]
    try:
        ray.get([one.about.remote() for one in actors])
    except ray.exceptions.RayError as error:
        raise StepError(f"encoders: they cannot start: {' '.join(str(error).split())[-400:]}") from None
    return count


def find_encoders() -> list[Encoder]:
    """Return the encoders of the cluster that this process is connected to, in the order of their names."""
    names = [entry["name"] for entry in ray.util.list_named_actors(all_namespaces=True)]
    found = sorted((name for name in names if name.startswith("encoder-")), key=lambda name: int(name[8:]))
    actors = [ray.get_actor(name, namespace=NAMESPACE) for name in found]
    encoders = []
    for actor, (node, source, has_gpu) in zip(actors, ray.get([a.about.remote() for a in actors]), strict=True):
        task = ray.remote(
            num_cpus=1 if has_gpu else DECODER_CPUS,
            max_retries=READ_TRIES,
            retry_exceptions=[OSError],
            scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=True),
        )(decode_rows)
        encoders.append(Encoder(actor, task, source[0]))
    return encoders


class OnlineBlocks(Blocks):
    """Blocks from the encoders of the Ray cluster that this process is connected to."""

    lost = "cannot be encoded"
    advice = "run download again to make those shards anew"

    def __init__(
        self,
        encoders: Sequence[Encoder],
        block_rows: Rows,
        fields: tuple[Field, ...],
        max_lost_fraction: float = MAX_LOST_FRACTION,
    ) -> None:
        """Raises StepError where there is no encoder."""
        if not encoders:
            raise StepError("online encoding: the job has no encoder; look at the log of the encoders' hosts")
        super().__init__(BlockRows(block_rows, np.zeros(len(block_rows), np.int32)), [fields], max_lost_fraction)
        self._encoders = encoders
        self._asked = [0] * len(encoders)
        self._waited_s = 0.0

    @contextmanager
    def read(self, block: int) -> Iterator[Tensors]:
        """Lend a block, in the object store. Raises StepError for a lost encoder, or when too many rows are lost."""
        yield self._whole(block, self._made)

    def take_waited_s(self) -> float:
        """Return for how long encoders had nothing to do before this rank's requests, since the last call."""
        with self._lock:
            waited_s, self._waited_s = self._waited_s, 0.0
        return waited_s

    @property
    def encoders(self) -> int:
        """How many there are."""
        return len(self._encoders)

    def _made(self, block: int) -> Tensors:
        chosen = self._chosen(block)
        try:
            found = dict(self._answer(chosen, block))
        finally:
            with self._lock:
                self._asked[chosen] -= 1
        with self._lock:
            self._waited_s += float(found.pop(WAITED_S))
        return found

    def _chosen(self, block: int) -> int:
        """Return the encoder with the fewest open requests of this rank, which gets another; ties go around."""
        with self._lock:
            turns = ((block + step) % len(self._encoders) for step in range(len(self._encoders)))
            chosen = min(turns, key=self._asked.__getitem__)
            self._asked[chosen] += 1
        return chosen

    def _answer(self, chosen: int, block: int) -> dict[str, Any]:
        """Return what an encoder makes. Raises BlockError where its pictures are at fault, StepError for a lost one."""
        first_row, rows = int(self.table.first_rows[block]), int(self.table.rows[block])
        try:
            answer: dict[str, Any] = ray.get(self._encoders[chosen].ask(first_row, rows))
        except ray.exceptions.RayTaskError as error:
            lost = BlockError if isinstance(error.cause, StepError) else StepError
            raise lost(f"encoder {chosen}: {' '.join(str(error.cause or error).split())[-500:]}") from None
        except ray.exceptions.RayError as error:
            raise StepError(f"encoder {chosen} was lost: {' '.join(str(error).split())[-300:]}") from None
        return answer


def online_loader(
    blocks: Blocks, seed: int, global_batch_size: int, share: Share, blocks_ahead: int, max_lanes: int = MAX_LANES
) -> LatentsLoader:
    """Return the loader of a rank that has up to `blocks_ahead` blocks made at a time."""
    rows = blocks.table.rows
    sizes = {"global_batch_size": global_batch_size, "max_lanes": max_lanes}
    order = SampleOrder(blocks.table.count, seed, block_rows=rows, **sizes)
    batch_rows = global_batch_size // share.world_size
    ahead = PREFETCHED_BATCHES + -(-blocks_ahead * int(rows.max()) // batch_rows)
    whole = TrainingOrder([BucketStream(0, order, 0, 0)])
    return LatentsLoader(blocks, whole, share, threads=blocks_ahead, batches_ahead=ahead)
