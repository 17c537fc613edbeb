"""`sd-pipeline throughput`: how fast this machine trains a parameter set's model at each micro-batch size.

Runs `python -m steps throughput` as a process of its own, for torch lives in the jobs. On AWS the same is a training
job of the training image with the hyperparameter throughput_micro_batch_sizes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from params.arguments import to_flags
from params.files import import_path
from params.layout import BASE_DIR_VARIABLE, ENTRY_POINT, PRETRAINED_CHANNEL, THROUGHPUT_FILE
from params.settings import Settings, load_settings
from pipeline_definition.commands import options
from pipeline_definition.commands.options import print_json
from pipeline_definition.errors import OperatorError, UsageError

Pretrained = Annotated[
    Path | None,
    typer.Option("--pretrained", help="Folder with unet/, vae/, text_encoder/ and tokenizer/, as diffusers saves it."),
]
Sizes = Annotated[str, typer.Option("--micro-batch-sizes", help="Comma-separated; the smallest first.")]
# What of Train's settings decides how fast it is.
SPEED = {
    *("precision", "compile", "cuda_graphs", "gradient_checkpointing", "shard_optimizer"),
    *("ema_decay", "ema_precision", "prediction_type"),
}

Seconds = Annotated[float, typer.Option("--seconds", help="Measuring time per size.")]
PhaseNumber = Annotated[int, typer.Option("--phase", min=1, help="Which phase's resolution and settings.")]


def throughput(
    params: options.Params = options.LOCAL_PARAMS,
    sizes: Sizes = "8,16,32,64,128",
    seconds: Seconds = 10.0,
    phase: PhaseNumber = 1,
    pretrained: Pretrained = None,
    as_json: options.AsJson = False,
) -> None:
    """Measure iterations/s, images/s, MFU and memory at each micro-batch size on this machine; pick the best.

    Examples:

      sd-pipeline throughput --params params/local.yaml --micro-batch-sizes 16,32,64

      sd-pipeline throughput --params params/sd2_base.yaml --pretrained ./stable-diffusion-2-base
    """
    settings = load_settings(params)
    folder = _pretrained(settings, pretrained)
    result = _measured(_flags(settings, sizes, seconds, phase), folder, quiet=as_json)
    if as_json:
        print_json(result)


def _pretrained(settings: Settings, given: Path | None) -> Path:
    if given is None and settings.local is not None:
        given = options.ROOT / settings.local.pretrained_dir
    if given is None or not (given / "unet" / "config.json").is_file():
        raise UsageError("--pretrained: name a folder with unet/config.json, as diffusers saves it")
    return given.resolve()


def _flags(settings: Settings, sizes: str, seconds: float, phase: int) -> list[str]:
    """Return the flags of the program: those of Train's settings that make it fast or slow."""
    if phase > len(settings.phases):
        raise UsageError(f"--phase {phase}: this parameter set has {len(settings.phases)}")
    chosen = settings.phases[phase - 1]
    values: dict[str, Any] = chosen.train.model_dump(include=SPEED)
    values |= {"throughput_micro_batch_sizes": sizes, "throughput_s": seconds}
    values |= {"random_latents_px": chosen.encode.resolution_px}
    return [str(flag) for flag in to_flags(values)]


def _measured(flags: list[str], pretrained: Path, quiet: bool) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="throughput-") as name:
        base = Path(name)
        data = base / "input" / "data"
        data.mkdir(parents=True)
        (data / PRETRAINED_CHANNEL).symlink_to(pretrained)
        command = [sys.executable, "-P", *ENTRY_POINT[1:], "throughput", *flags]
        environment = {**os.environ, **import_path(options.ROOT), BASE_DIR_VARIABLE: name}
        done = subprocess.run(command, env=environment, stdout=subprocess.DEVNULL if quiet else None)
        if done.returncode:
            raise OperatorError(f"the measurement ended with status {done.returncode}; its reason is above")
        result: dict[str, Any] = json.loads((base / "output" / "data" / THROUGHPUT_FILE).read_text(encoding="utf-8"))
        return result
