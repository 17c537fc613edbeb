"""Assembles the parts of a training: model, data, objective and optimizer step."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch

from params.layout import LATENTS_CHANNEL, TRAIN_SPLIT
from params.programs import TrainArguments
from steps.container import Container
from steps.data.loading.bucket_order import TrainingOrder
from steps.data.loading.latents import LatentsDataset
from steps.data.loading.loader import LatentsLoader, Share
from steps.errors import StepError
from steps.model.families import denoiser_of
from steps.training.block_aids import BlockAids
from steps.training.diffusion import load_process
from steps.training.gradients import Gradients
from steps.training.inputs import CaptionConditioning, InputMaker
from steps.training.lora import with_text_encoder
from steps.training.model import build_network
from steps.training.objective import FORWARD_DTYPES, WEIGHT_DTYPES, Objective, Validation
from steps.training.optimizer_step import BatchPlan, OptimizerStep
from steps.training.ranks import World
from steps.training.state import TrainingState
from steps.training.utilisation import Utilisation, matmul_flops_per_s, training_flops

# Settings of training that the inputs are made by.
SHARES: Final = ("caption_dropout", "noise_offset", "encoder_dropout", "written_captions")


@dataclass(frozen=True)
class Parts:
    """The objects that one rank trains with."""

    dataset: LatentsDataset
    state: TrainingState
    gradients: Gradients
    inputs: InputMaker
    optimizer_step: OptimizerStep
    validation: Validation
    utilisation: Utilisation


def latents_location(arguments: TrainArguments, container: Container) -> Path | str:
    """Return the location of the latents: in S3, or the channel."""
    return arguments.latents_uri or container.channel_dir(LATENTS_CHANNEL)


def assemble(
    arguments: TrainArguments, plan: BatchPlan, world: World, latents: Path | str, pretrained: Path, initial: Path
) -> Parts:
    """Return the parts before the first sample; `initial` holds the initial weights. Raises StepError for a misfit."""
    dataset, denoiser = LatentsDataset(latents, arguments.max_lost_fraction), denoiser_of(pretrained)
    manifest = dataset.manifest
    if arguments.written_captions and not manifest.captions_manifest_digest:
        fix = "add a `recaption:` section and encode again, or set it to 0"
        raise StepError(f"train.written_captions: {latents} has none; {fix}")
    device, precision, text_learns = world.device, arguments.precision, arguments.lora_text_encoder
    process = load_process(pretrained, arguments, manifest.latent_shape[-1], device, WEIGHT_DTYPES[precision])
    reader = denoiser.reader(pretrained, manifest.caption_length, None if text_learns else FORWARD_DTYPES[precision])
    captions = CaptionConditioning(reader, manifest.caption_embeddings, device, text_learns)
    helped = arguments.routing_fraction or arguments.alignment_weight
    aids = BlockAids(denoiser, arguments, denoiser.config(initial), manifest) if helped else None
    scaling, shift = manifest.scaling_factor, manifest.shift_factor
    objective = Objective(denoiser, process, captions, scaling, precision, device, shift, aids)
    shares = {name: getattr(arguments, name) for name in SHARES}
    inputs = InputMaker(arguments.seed, process=process, captions=captions, device=device, aids=aids, **shares)
    model = build_network(denoiser, arguments, initial, manifest, device)
    if aids is not None:
        aids.attach(model)
    flops = training_flops(denoiser, model.config, manifest, captions.positions, arguments)
    if text_learns:
        model = with_text_encoder(model, arguments, pretrained, WEIGHT_DTYPES[precision], device)
    state = TrainingState(model, arguments, world)
    gradients = Gradients(state, world, arguments, plan.accumulation_steps)
    return Parts(
        dataset=dataset,
        state=state,
        gradients=gradients,
        inputs=inputs,
        optimizer_step=OptimizerStep(arguments, plan, state, gradients, objective),
        validation=Validation(dataset, arguments.validation_samples, objective, inputs, world),
        utilisation=Utilisation(device, flops, matmul_flops_per_s(device, precision)),
    )


def warm_up(parts: Parts, plan: BatchPlan) -> None:
    """Run a batch of every bucket without learning from it; several times where CUDA graphs are recorded.

    What only the first pass does (compiling, choosing algorithms, running out of memory) happens before the clock
    starts.
    """
    for span in parts.dataset.spans(TRAIN_SPLIT).values():
        rows = span.start + np.arange(plan.rank_batch_size, dtype=np.int64) % len(span)
        batch = parts.dataset.read(TRAIN_SPLIT, rows)
        for _ in range(parts.gradients.warm_up_passes):
            parts.optimizer_step.add_gradients(parts.inputs.training(batch, torch.from_numpy(rows)))
    parts.gradients.settle()


def loader_from(parts: Parts, arguments: TrainArguments, plan: BatchPlan, world: World, first: int) -> LatentsLoader:
    """Return the loader of this rank's batches from position `first` on."""
    order = parts.dataset.order(TRAIN_SPLIT, arguments.seed, plan.global_batch_size, arguments.max_lanes)
    if world.is_head:
        warn_of_small_buckets(order)
        if (lanes := order.streams[0].order.lanes) < world.size:
            what = f"{world.size} ranks share {lanes} lanes, and read {world.size / lanes:.1f} times what they use"
            print(f"warning: {what}; begin a new training with train.max_lanes {world.size}", flush=True)
    share = Share(world.rank, world.size, first, plan.total_samples(arguments.training_samples))
    return LatentsLoader(parts.dataset.blocks(TRAIN_SPLIT), order, share, threads=arguments.read_threads)


def warn_of_small_buckets(order: TrainingOrder) -> None:
    """Warn of buckets smaller than a global batch: their samples come as often as others, but repeat in a batch."""
    size = order.global_batch_size
    for stream in order.streams if len(order.streams) > 1 else ():
        if stream.order.count < size:
            print(
                f"warning: bucket {stream.bucket} has {stream.order.count} samples, so a global batch of {size} holds "
                "some of them more than once; raise encode.min_bucket_samples to the global batch",
                flush=True,
            )
