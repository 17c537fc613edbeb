"""Training and encoding in one job: an instance group `trainers` trains what a group `encoders` makes meanwhile.

Reads the latents channel (held-out latents, manifest.json, plan.json) and, on the encoders, the pictures under
--shards-uri; writes nothing of its own. Ray connects the groups: the first trainer leads it and lends it nothing, so
that encoders run on their own hosts alone. Each rank asks them for its blocks and is handed tensors.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from params import layout
from params.programs import TrainArguments
from steps.container import Cluster, Container
from steps.data.encoding.decoding import ShardsSource
from steps.data.encoding.encoder_settings import EncoderSettings
from steps.data.encoding.plan import read_plan_file
from steps.data.latents.block import WRITTEN_TOKEN_IDS
from steps.data.latents.latents_manifest import LatentsManifest
from steps.data.loading.latents import LatentsDataset
from steps.data.loading.loader import LatentsLoader, Share
from steps.device import gpus_to_lend
from steps.errors import StepError
from steps.ray_cluster import join, leading, visiting
from steps.training.optimizer_step import BatchPlan
from steps.training.ranks import World


def lend_encoder(arguments: TrainArguments, container: Container, cluster: Cluster) -> None:
    """Lend this host to the trainers until they end."""
    both = cluster.of_groups(layout.TRAINERS_GROUP, layout.ENCODERS_GROUP)
    join(both, container.job_name, arguments.host_wait_s, gpus=gpus_to_lend(container))


@contextmanager
def encoders(arguments: TrainArguments, container: Container) -> Iterator[None]:
    """Have encoders ready for the ranks of this host; the first trainer starts them, and ends them on the way out."""
    cluster = container.cluster().of_groups(layout.TRAINERS_GROUP, layout.ENCODERS_GROUP)
    if not cluster.is_head:
        # A daemon: it ends with the head, or with this process.
        joining = {"job_name": container.job_name, "host_wait_s": arguments.host_wait_s, "lends": False}
        threading.Thread(target=join, args=(cluster,), kwargs=joining, daemon=True).start()
        yield
        return
    with leading(cluster, container.job_name, arguments.host_wait_s, lends=False):
        from steps.data.loading.online import start_encoders

        count = start_encoders(*_orders(arguments, container))
        print(f"{count} encoders on {len(cluster.groups[layout.ENCODERS_GROUP])} hosts", flush=True)
        yield


class OnlineData:
    """What one rank needs to load blocks that are made meanwhile."""

    def __init__(self, arguments: TrainArguments, container: Container, plan: BatchPlan, world: World) -> None:
        """Connect to the encoders. Raises StepError where there are none."""
        from steps.data.loading.online import OnlineBlocks, find_encoders

        self._arguments, self._plan, self._world = arguments, plan, world
        folder = container.channel_dir(layout.LATENTS_CHANNEL)
        rows = read_plan_file(folder / layout.LATENTS_PLAN_FILE).block_rows(layout.TRAIN_SPLIT)
        # Encoders make what Encode would have, but for captions that Recaption wrote.
        encoded = LatentsDataset(folder).blocks(layout.TRAIN_SPLIT).fields[0]
        fields = tuple(field for field in encoded if field.name != WRITTEN_TOKEN_IDS)
        self._blocks = OnlineBlocks(find_encoders(), rows, fields, arguments.max_lost_fraction)

    def loader_from(self, first_position: int) -> LatentsLoader:
        """Return this rank's batches from a position on, in the order in which they would be read from a disk."""
        last = self._plan.total_samples(self._arguments.training_samples)
        share = Share(self._world.rank, self._world.size, first_position, last)
        from steps.data.loading.online import online_loader

        size, arguments = self._plan.global_batch_size, self._arguments
        return online_loader(self._blocks, arguments.seed, size, share, arguments.blocks_ahead, arguments.max_lanes)

    def figures(self) -> dict[str, float]:
        """Return for how long an encoder waited since the last call, averaged over all; every rank must ask."""
        waited_ms = sum(self._world.gather_int(round(1000 * self._blocks.take_waited_s())))
        return {layout.ENCODER_WAIT_S: waited_ms / 1000 / self._blocks.encoders}


@contextmanager
def online_data(
    arguments: TrainArguments, container: Container, plan: BatchPlan, world: World
) -> Iterator[OnlineData | None]:
    """Yield a rank's way to the encoders; None where the latents are read."""
    if not arguments.shards_uri:
        yield None
        return
    with visiting(container.cluster().of_groups(layout.TRAINERS_GROUP, layout.ENCODERS_GROUP)):
        yield OnlineData(arguments, container, plan, world)


def _orders(arguments: TrainArguments, container: Container) -> tuple[EncoderSettings, ShardsSource]:
    """Return what encoders are told: to do as the Encode of the manifest did. Raises StepError where it had buckets."""
    folder = container.channel_dir(layout.LATENTS_CHANNEL)
    manifest = LatentsManifest.model_validate_json((folder / layout.MANIFEST_FILE).read_bytes())
    if manifest.buckets:
        raise StepError("online encoding knows squares alone: run Encode with max_bucket_ratio 1, or without encoders")
    settings = EncoderSettings(
        pretrained=Path(),  # each host has its own
        batch_size=arguments.encode_batch_size,
        caption_length=manifest.caption_length,
        caption_embeddings=manifest.caption_embeddings,
        precision=manifest.precision,
    )
    plan = read_plan_file(folder / layout.LATENTS_PLAN_FILE)
    return settings, ShardsSource(arguments.shards_uri, plan)
