"""The network that is trained: new or pretrained, checked against the latents, and set up for its device.

What torch compiles is kept beside the checkpoints, so that neither a restarted job nor Train after Tune compiles it
again: reads and writes <checkpoints>/compiled/, torch's own cache, which SageMaker copies to S3 and back with them;
Train's first job also reads what Tune's trials left there, where trials have checkpoints (`tune.spot`). Torch takes
from it only what has the same code, shapes, version and device. The cache is machine code, and pickles that torch
itself loads: there is no form of it that is data alone. So it comes only from the checkpoints of this data set, which
the pipeline's role writes, and without `compile` nothing is read.
"""

import importlib
import os
import shutil
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any, Final

import torch

from params.layout import TUNING
from params.programs import TrainArguments
from params.s3 import join_uri
from steps.container import Container
from steps.data.latents.latents_manifest import LatentsManifest
from steps.data.storage import Storage
from steps.errors import StepError
from steps.model.denoiser import Denoiser
from steps.training.lora import add_lora
from steps.training.objective import FORWARD_DTYPES, WEIGHT_DTYPES

# For training, validation and its smaller last batch, each in training and in evaluation mode.
GRAPHS_PER_SHAPE: Final = 6
CACHE_VARIABLE: Final = "TORCHINDUCTOR_CACHE_DIR"
FOLDER: Final = "compiled"


def build_network(
    denoiser: Denoiser, arguments: TrainArguments, folder: Path, manifest: LatentsManifest, device: torch.device
) -> Any:
    """Return the network on its device, in training mode, the same on every rank; StepError for a misfit."""
    dtype = WEIGHT_DTYPES[arguments.precision]
    scratch = arguments.initial_weights == "scratch"
    network: Any = denoiser.new(folder, arguments.seed) if scratch else denoiser.load(folder, torch.float32)
    _check(denoiser, network, manifest)
    # The exported pipeline draws pictures of the size that it was trained on.
    network.register_to_config(sample_size=manifest.latent_shape[-1])
    add_lora(network, arguments, arguments.lora_targets)
    if dtype != torch.float32:
        network.to(dtype)
    network.to(device).train()
    denoiser.set_up(network, device.type == "cuda", FORWARD_DTYPES[arguments.precision])
    _set_up(network, arguments, len(manifest.latent_shapes))
    return network


def _set_up(network: Any, arguments: TrainArguments, shapes: int) -> None:
    if arguments.gradient_checkpointing:
        network.enable_gradient_checkpointing()
    if arguments.cuda_graphs and not arguments.compile:
        raise StepError("cuda_graphs needs compile: set compile, too")
    if arguments.compile:
        # Training and validation have different batch sizes, and every bucket its shape: each needs a graph, but torch
        # stops compiling after eight.
        config: Any = importlib.import_module("torch._dynamo.config")
        config.recompile_limit = max(config.recompile_limit, GRAPHS_PER_SHAPE * shapes)
        # What torch calls reduce-overhead is CUDA graphs.
        network.compile(dynamic=False, mode="reduce-overhead" if arguments.cuda_graphs else None)


def _check(denoiser: Denoiser, network: Any, manifest: LatentsManifest) -> None:
    problem = next(denoiser.misfits(network.config, manifest.latent_shapes), "")
    width = denoiser.condition_shapes(network.config, 1)[0][-1]
    if manifest.caption_embeddings and width != manifest.embedding_width:
        problem = f"it reads embeddings {width} wide, but the captions' embeddings are {manifest.embedding_width} wide"
    if problem:
        raise StepError(f"{denoiser.config_name}: {problem}")


def keep_compiled(
    arguments: TrainArguments, container: Container, environment: MutableMapping[str, str] = os.environ
) -> None:
    """Have torch, in this process and in the ranks that it starts, compile into the checkpoints' volume."""
    if not arguments.compile:
        return
    folder = container.checkpoint_dir / FOLDER
    environment.setdefault(CACHE_VARIABLE, str(folder))
    if folder.exists() or not arguments.checkpoints_uri:
        return
    trials = join_uri(arguments.checkpoints_uri.rstrip("/").rpartition("/")[0], TUNING, FOLDER)
    try:
        Storage(trials).fetch(folder)
    except FileNotFoundError:
        return
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        print(f"{trials}: cannot be read ({' '.join(str(error).split())[:200]}); compiling anew", flush=True)
