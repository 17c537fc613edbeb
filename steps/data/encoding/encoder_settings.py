"""What the encode step tells its encoders, and knows of the models before it loads them; imports no torch."""

from dataclasses import dataclass
from pathlib import Path

from params.families import CONFIG_FILE, VAE
from steps.data.encoding.latents_artifact import ModelFacts
from steps.errors import StepError
from steps.model.digest import encoder_digests, folder_family
from steps.model.json_object import read_object
from steps.model.token_lengths import token_lengths


@dataclass(frozen=True)
class EncoderSettings:
    pretrained: Path
    batch_size: int
    caption_length: int
    caption_embeddings: bool
    precision: str
    features: Path | None = None
    features_side: int = 0


def model_facts(pretrained: Path, features: Path | None = None, features_side: int = 0) -> ModelFacts:
    """Return what the manifest says of the models. Raises StepError where a configuration lacks what is needed."""
    family, file = folder_family(pretrained), (features or pretrained) / CONFIG_FILE
    whole = read_object(file) if features and file.is_file() else {}
    sees = whole.get("vision_config", whole)
    if features and "hidden_size" not in sees:
        raise StepError(f"encode.features {features.name}: no vision model is in data.evaluator_uri/{features.name}")
    vae = read_object(pretrained / VAE / CONFIG_FILE)
    encoders = [part for part in family.text.values() if part not in family.optional or (pretrained / part).is_dir()]
    texts = [read_object(pretrained / part / CONFIG_FILE) for part in encoders]
    try:
        return ModelFacts(
            **encoder_digests(pretrained, family),
            scaling_factor=float(vae["scaling_factor"]),
            caption_length=sum(token_lengths(pretrained, family).values()),
            embedding_width=int(texts[0]["d_model" if "d_model" in texts[0] else "hidden_size"]),
            latent_channels=int(vae["latent_channels"]),
            factor=2 ** (len(vae["block_out_channels"]) - 1),
            shift_factor=float(vae.get("shift_factor") or 0.0),
            features_shape=(features_side, features_side, int(sees["hidden_size"])) if sees else (),
        )
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise StepError(f"{pretrained}: a config.json lacks or garbles {error}") from None
