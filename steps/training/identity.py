"""What makes two trainings the same one: only then may one go on with the checkpoints of the other."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Final

from params.layout import MANIFEST_FILE
from params.programs import MONEY, PATIENCE, TrainArguments
from steps.data.block_files import open_files
from steps.data.latents_manifest import LatentsManifest
from steps.errors import StepError
from steps.model.pretrained import TEXT_ENCODER, TOKENIZER, UNET, VAE, folder_digest, scheduler_config, unet_config

# How fast, how often and how watched: none of it changes the weights (but by rounding).
WITHOUT_EFFECT: Final = frozenset(
    {
        "micro_batch_size",
        "compile",
        "cuda_graphs",
        "shard_optimizer",
        "gradient_checkpointing",
        "validation_samples",
        "validate_every_samples",
        "save_every_samples",
        "keep_checkpoints",
        "checkpoints_uri",
        "encode_batch_size",
        "blocks_ahead",
        "max_checkpoint_lag_s",
        "log_every_steps",
        "collective_timeout_s",
        "max_skipped_steps",
        "throughput_micro_batch_sizes",
        "throughput_s",
        "warm_latents",
        "latents_uri",
        *MONEY,
        *PATIENCE,
        "read_threads",
        "max_lost_fraction",
    }
)


def training_identity(
    arguments: TrainArguments, pretrained: Path, initial: Path, latents: Path | str
) -> dict[str, Any]:
    """Return the settings and the digests of everything that goes into the weights.

    `initial` is the folder with the UNet to begin with. Reads the whole of both folders: for one rank alone. Raises
    StepError where there are no latents, or they were made by another encoder than the pretrained folder's.
    """
    try:
        manifest_bytes = open_files(latents).read(MANIFEST_FILE)
    except OSError as error:
        raise StepError(
            f"{latents}/{MANIFEST_FILE}: cannot be read ({error}): the latents were never finished"
        ) from None
    digests = {part: folder_digest(pretrained / part) for part in (VAE, TOKENIZER, TEXT_ENCODER)}
    LatentsManifest.model_validate_json(manifest_bytes).require(
        encoder_digest=digests[VAE], tokenizer_digest=digests[TOKENIZER], text_encoder_digest=digests[TEXT_ENCODER]
    )
    from_scratch = arguments.initial_weights == "scratch"
    return {
        "settings": arguments.model_dump(mode="json", exclude=set(WITHOUT_EFFECT)),
        "latents": hashlib.sha256(manifest_bytes).hexdigest(),
        "text_encoder": digests[TEXT_ENCODER],
        "unet": unet_config(pretrained) if from_scratch else folder_digest(initial / UNET),
        "scheduler": scheduler_config(pretrained),
    }


def identity_digest(identity: dict[str, Any]) -> str:
    """Return the name under which a training's checkpoints live: 16 hexadecimal digits."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
