"""Encoders that make blocks of latents on request, while training takes them: one on each GPU of the `encoders` group.

Reads pictures of verified shards and the channel `pretrained` of the host that it runs on; writes nothing. Tasks of
Ray read and decode pictures on the encoder's own host while it encodes others. A block depends on its rows alone, so it
is the block that Encode would have written.
"""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import ray

from params.layout import PRETRAINED_CHANNEL, TRAIN_SPLIT
from steps.container import Container
from steps.data.encoding.decoding import ShardsSource, decode, planned_samples
from steps.data.encoding.encoder_settings import EncoderSettings
from steps.data.latents.block import Array
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
    size = source.plan.buckets.sizes[0]
    pixels = np.stack([decode(sample, size) for sample in samples])
    return pixels, [sample.caption for sample in samples]


@dataclass(frozen=True)
class Encoder:
    """An encoder as a rank sees it."""

    actor: Any
    decode: Any
    """Task that decodes on the encoder's host."""
    source: Any
    """Reference of what it decodes from."""

    def ask(self, first_row: int, rows: int) -> Any:
        """Ask for a block; return a reference to it."""
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
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

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
