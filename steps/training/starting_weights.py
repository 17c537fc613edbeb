"""Compares what the starting weights say of themselves with what training is told to do with them.

Reads the configurations of the initial folder and of the pretrained one; writes nothing, loads no weights. `python -m
steps train` calls it before any rank starts: a UNet that predicts v and is trained as epsilon, or one of another
architecture, would cost days without an error.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from params.programs import TrainArguments
from steps.errors import StepError
from steps.model.json_object import read_object
from steps.model.pretrained import CONFIG_FILE, TEXT_ENCODER, VAE, scheduler_config, unet_config

# What a UNet may ask for besides the noisy latents, the timestep and the text, and whose it is.
OTHER_CONDITIONS: Final = {
    "addition_embed_type": "as Stable Diffusion XL's",
    "class_embed_type": "as the upscaler's",
    "encoder_hid_dim_type": "as Kandinsky's",
    "time_cond_proj_dim": "as a latent consistency model's",
}
# diffusers' defaults, for what a scheduler's configuration does not say.
SCHEDULE: Final = {"num_train_timesteps": 1000, "beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02}
TEXT_SHAPE: Final = ("num_hidden_layers", "hidden_size", "vocab_size", "max_position_embeddings")


def check_starting_weights(arguments: TrainArguments, initial: Path, pretrained: Path) -> None:
    """Check the folder that training starts from against the settings and the folder that made the latents.

    Raises StepError in one line that names the configuration, the setting and both values.
    """
    _refuse(_architecture(unet_config(initial), _config(pretrained / TEXT_ENCODER)))
    if arguments.initial_weights == "scratch":
        return
    if not arguments.new_objective:
        _refuse(_objective(scheduler_config(initial), arguments))
    if initial != pretrained:
        _refuse(_parts(initial, pretrained))
        if not arguments.new_objective:
            _refuse(_schedule(scheduler_config(initial), scheduler_config(pretrained)))


def _refuse(problems: Iterator[str]) -> None:
    text = "; ".join(problems)
    if text:
        raise StepError(text)


def _architecture(unet: Mapping[str, Any], text_encoder: Mapping[str, Any] | None) -> Iterator[str]:
    for name, whose in OTHER_CONDITIONS.items():
        if unet.get(name) is not None:
            yield (
                f"unet/config.json: {name} is {unet[name]!r}, {whose}: this pipeline trains UNets conditioned on text "
                "and time alone, such as Stable Diffusion 1 and 2; name another data.pretrained_uri"
            )
    wide, width = unet.get("cross_attention_dim"), (text_encoder or {}).get("hidden_size")
    if width is not None and isinstance(wide, int) and wide != width:
        yield (
            f"unet/config.json: cross_attention_dim is {wide}, and text_encoder/config.json has hidden_size {width}: "
            "they are parts of different models"
        )


def _objective(config: Mapping[str, Any], arguments: TrainArguments) -> Iterator[str]:
    trained, asked = config.get("prediction_type", "epsilon"), arguments.prediction_type
    if trained != asked:
        yield (
            f"train.prediction_type is {asked}, and the starting weights' scheduler_config.json says {trained}: set "
            f"prediction_type to {trained}, or new_objective to true if the model is to learn {asked} in its place"
        )
    ends_in_noise = bool(config.get("rescale_betas_zero_snr", False))
    if ends_in_noise != arguments.zero_terminal_snr:
        yield (
            f"train.zero_terminal_snr is {_yaml(arguments.zero_terminal_snr)}, and the starting weights' "
            f"scheduler_config.json has rescale_betas_zero_snr {_yaml(ends_in_noise)}: set zero_terminal_snr to "
            f"{_yaml(ends_in_noise)}, or new_objective to true if the schedule is to change"
        )


def _schedule(initial: Mapping[str, Any], pretrained: Mapping[str, Any]) -> Iterator[str]:
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


def _yaml(value: bool) -> str:
    return "true" if value else "false"
