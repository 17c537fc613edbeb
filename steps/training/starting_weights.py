"""The starting weights of a training: new ones, pretrained ones, or another training's model; and whether they fit.

Reads the channels `pretrained` and, for `initial_weights` model, `initial_model` (model.tar.gz), which is unpacked to
the job's volume, once for each host. `python -m steps train` compares what the weights say of themselves with what it
is told to do before any rank starts: a network that predicts v and is trained as epsilon, or one of another
architecture, would cost days without an error.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from params.arguments import to_text
from params.families import CONFIG_FILE, FLOW, TEXT_ENCODER, VAE, predicted
from params.layout import INITIAL_MODEL_CHANNEL, LINEAGE_FILE, MODEL_ARCHIVE, PRETRAINED_CHANNEL, SOURCES_FILE
from params.programs import TrainArguments
from steps.container import Container
from steps.errors import StepError
from steps.model.adapters import own_adapter
from steps.model.archive import unpack_model
from steps.model.denoiser import Denoiser
from steps.model.digest import folder_family
from steps.model.families import denoiser_of
from steps.model.json_object import read_object
from steps.model.pretrained import scheduler_config

# On the job's volume: the root file system of an instance is small.
UNPACKED_DIR: Final = "/opt/ml/output/initial_model"
# diffusers' defaults, for what a scheduler's configuration does not say.
SCHEDULE: Final = {"num_train_timesteps": 1000, "beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02}
TEXT_SHAPE: Final = ("num_hidden_layers", "hidden_size", "vocab_size", "max_position_embeddings")


def initial_folder(arguments: TrainArguments, container: Container) -> Path:
    is_model = arguments.initial_weights == "model"
    return container.path(UNPACKED_DIR) if is_model else container.channel_dir(PRETRAINED_CHANNEL)


def unpack_initial_model(arguments: TrainArguments, container: Container) -> None:
    """Unpack the initial model, if any, before a rank of this host starts. Raises StepError if it is unusable."""
    if arguments.initial_weights != "model":
        return
    channel = container.channel_dir(INITIAL_MODEL_CHANNEL)
    if not channel.is_dir():
        raise StepError(
            f"initial_weights is model and there is no channel {INITIAL_MODEL_CHANNEL}: add it with the former "
            "training's model.tar.gz, or set initial_weights to scratch or pretrained"
        )
    folder = initial_folder(arguments, container)
    unpack_model(channel / MODEL_ARCHIVE, folder)
    if name := own_adapter(folder):
        what = f"training begins at the model without its adapter {name}, which lies beside its weights"
        print(f"note: {what}", flush=True)


def former_lineage(arguments: TrainArguments, container: Container) -> dict[str, Any] | None:
    """Return the lineage of the initial model, or None without one."""
    if arguments.initial_weights != "model":
        return None
    path = initial_folder(arguments, container) / LINEAGE_FILE
    return read_object(path) if path.is_file() else None


def base_model(arguments: TrainArguments, container: Container, identity: dict[str, Any]) -> str | None:
    """Return what the training with an identity began with, as people know it."""
    if arguments.initial_weights == "scratch":
        return None
    folder = initial_folder(arguments, container)
    if (folder / LINEAGE_FILE).is_file():
        return f"the model of job {read_object(folder / LINEAGE_FILE).get('job_name')}"
    part = folder_family(folder).denoiser
    source = read_object(folder / SOURCES_FILE).get(part) if (folder / SOURCES_FILE).is_file() else None
    return f"{source['source']} {source['revision']}".strip() if source else f"{part} sha256:{identity[part]}"


def check_starting_weights(arguments: TrainArguments, initial: Path, pretrained: Path) -> None:
    """Check the initial folder against settings and pretrained folder; StepError names setting and both values."""
    denoiser = denoiser_of(initial)
    if denoiser is not denoiser_of(pretrained):
        raise StepError(f"{initial}: a {denoiser.family.pipeline}, which {pretrained} is not: use parts of one family")
    _refuse(_unfit(arguments, denoiser, initial))
    _refuse(denoiser.contradictions(initial, pretrained))
    if arguments.initial_weights == "scratch":
        return
    if not arguments.new_objective:
        _refuse(_objective(scheduler_config(initial), arguments))
    if initial != pretrained:
        _refuse(_parts(initial, pretrained))
        if not arguments.new_objective:
            _refuse(_schedule(scheduler_config(initial), scheduler_config(pretrained), arguments))


def _refuse(problems: Iterator[str]) -> None:
    if text := "; ".join(problems):
        raise StepError(text)


def _unfit(arguments: TrainArguments, denoiser: Denoiser, initial: Path) -> Iterator[str]:
    """Yield which settings a family of models does not have."""
    of, encoders = f"a {denoiser.family.pipeline}", len(denoiser.family.text)
    if arguments.prediction_type not in denoiser.predictions:
        known = " or ".join(denoiser.predictions)
        yield f"train.prediction_type is {arguments.prediction_type}: {of} is trained to predict {known}"
    for name in ("routing_fraction", "alignment_weight"):
        if getattr(arguments, name) and not denoiser.blocks(denoiser.config(initial))[0]:
            yield f"train.{name}: {of} has no blocks of tokens; set it to 0"
    if arguments.lora_text_encoder and encoders > 1:
        yield f"train.lora_text_encoder: {of} learns without; set it to false"
    if arguments.encoder_dropout and encoders == 1:
        yield f"train.encoder_dropout: {of} has one text encoder: use caption_dropout"


def _objective(config: Mapping[str, Any], arguments: TrainArguments) -> Iterator[str]:
    trained, asked = predicted(config), arguments.prediction_type
    if trained != asked:
        yield (
            f"train.prediction_type is {asked}, and the starting weights' scheduler_config.json says {trained}: set "
            f"prediction_type to {trained}, or new_objective to true if the model is to learn {asked} in its place"
        )
    ends_in_noise = bool(config.get("rescale_betas_zero_snr", False))
    if trained != FLOW and asked != FLOW and ends_in_noise != arguments.zero_terminal_snr:
        yield (
            f"train.zero_terminal_snr is {to_text(arguments.zero_terminal_snr)}, and the starting weights' "
            f"scheduler_config.json has rescale_betas_zero_snr {to_text(ends_in_noise)}: set zero_terminal_snr to "
            f"{to_text(ends_in_noise)}, or new_objective to true if the schedule is to change"
        )


def _schedule(initial: Mapping[str, Any], pretrained: Mapping[str, Any], arguments: TrainArguments) -> Iterator[str]:
    if arguments.prediction_type == FLOW:
        return
    for name, default in SCHEDULE.items():
        was, becomes = initial.get(name, default), pretrained.get(name, default)
        if was != becomes:
            yield (
                f"scheduler_config.json: {name} was {was} when the starting weights were trained, and is {becomes} in "
                "the pretrained folder: use the same folder, or set new_objective to true if the schedule is to change"
            )


def _parts(initial: Path, pretrained: Path) -> Iterator[str]:
    """Yield in what the starting model's VAE or text encoder differ from those that made the latents."""
    for part, names in ((VAE, ("scaling_factor", "latent_channels")), (TEXT_ENCODER, TEXT_SHAPE)):
        was, becomes = _config(initial / part), _config(pretrained / part)
        for name in names:
            if was and becomes and was.get(name) != becomes.get(name):
                yield (
                    f"{part}/config.json: {name} was {was.get(name)} when the starting weights were trained, and is "
                    f"{becomes.get(name)} in the pretrained folder: they need the parts that they were trained with"
                )


def _config(part: Path) -> Mapping[str, Any] | None:
    file = part / CONFIG_FILE
    return read_object(file) if file.is_file() else None
