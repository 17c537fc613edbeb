"""What the encode step tells its encoders, and what it must know of the models before it loads them.

Reads <folder>/{vae,text_encoder}/config.json; imports no torch, so that processes which only plan or write start fast.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from steps.data.encoding.latents_artifact import ModelFacts
from steps.errors import StepError
from steps.model.digest import folder_digest
from steps.model.json_object import read_object


@dataclass(frozen=True)
class EncoderSettings:
    """How to encode."""

    pretrained: Path
    batch_size: int
    caption_length: int
    caption_embeddings: bool
    precision: str


def model_facts(pretrained: Path) -> ModelFacts:
    """Return what the manifest says of the models.

    Raises StepError where a configuration lacks what is needed.
    """
    vae = read_object(pretrained / "vae" / "config.json")
    text = read_object(pretrained / "text_encoder" / "config.json")
    try:
        return ModelFacts(
            encoder_digest=folder_digest(pretrained / "vae"),
            tokenizer_digest=folder_digest(pretrained / "tokenizer"),
            text_encoder_digest=folder_digest(pretrained / "text_encoder"),
            scaling_factor=float(vae["scaling_factor"]),
            caption_length=int(text["max_position_embeddings"]),
            embedding_width=int(text["hidden_size"]),
            latent_channels=int(vae["latent_channels"]),
            factor=2 ** (len(vae["block_out_channels"]) - 1),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise StepError(f"{pretrained}: a config.json lacks or garbles {error}") from None
