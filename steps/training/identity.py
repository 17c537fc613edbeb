"""The identity of a training: only trainings with the same one may share checkpoints."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Final

from params.layout import MANIFEST_FILE
from params.model import Decides
from params.programs import TrainArguments
from steps.artifact import Identity, digest
from steps.data.latents.latents_manifest import LatentsManifest
from steps.data.storage import Storage
from steps.errors import StepError
from steps.model.digest import encoder_digests, folder_digest
from steps.model.families import denoiser_of
from steps.model.pretrained import scheduler_config

# Speed, monitoring, place and cost: none of these changes the weights (except by rounding).
WITHOUT_EFFECT: Final = TrainArguments.names(Decides.RUNNING, Decides.MONEY, Decides.PLACE)


def training_identity(
    arguments: TrainArguments, pretrained: Path, initial: Path, latents: Path | str
) -> dict[str, Any]:
    """Return the settings and the digests of everything that decides the weights.

    `initial` is the folder with the initial weights. Reads all of both folders: call it on one rank only. Raises
    StepError if there are no latents, or an encoder other than the pretrained folder's made them.
    """
    try:
        manifest_bytes = Storage(str(latents)).read(MANIFEST_FILE)
    except OSError as error:
        raise StepError(
            f"{latents}/{MANIFEST_FILE}: cannot be read ({error}): the latents were never finished"
        ) from None
    denoiser = denoiser_of(pretrained)
    digests = encoder_digests(pretrained, denoiser.family)
    LatentsManifest.model_validate_json(manifest_bytes).require(**digests)
    from_scratch = arguments.initial_weights == "scratch"
    return {
        "settings": arguments.deciding(TrainArguments.model_fields.keys() - WITHOUT_EFFECT),
        "latents": hashlib.sha256(manifest_bytes).hexdigest(),
        "text_encoder": digests["text_encoder_digest"],
        denoiser.part: denoiser.config(pretrained) if from_scratch else folder_digest(initial / denoiser.part),
        "scheduler": scheduler_config(pretrained),
    }


def identity_digest(identity: Identity) -> str:
    """Return the name under which a training's checkpoints live: 16 hexadecimal digits."""
    return digest(identity)[:16]
