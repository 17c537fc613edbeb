"""`sd-pipeline export | throughput | picture inspect`: a model for others, its speed in training, a picture's origin.

Each runs its program, `python -m steps NAME`, as a process of its own, for torch lives in the jobs. On AWS the same as
`throughput` is a training job of the training image with the hyperparameter throughput_micro_batch_sizes.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from params.arguments import to_flags
from params.families import CONFIG_FILE, FAMILIES
from params.files import import_path
from params.layout import BASE_DIR_VARIABLE, ENTRY_POINT, MODEL_ARCHIVE, PRETRAINED_CHANNEL, THROUGHPUT_FILE
from params.s3 import SCHEME
from params.settings import load_settings
from pipeline_definition.artifacts.archive import open_object
from pipeline_definition.commands import options
from pipeline_definition.commands.models import find
from pipeline_definition.commands.options import Reply
from pipeline_definition.errors import OperatorError, UsageError
from pipeline_definition.session import Target

MAX_ARCHIVE_BYTES: Final = 64 * 2**30

SingleFile = Annotated[
    Path | None,
    typer.Option("--single-file", help="Also NAME.safetensors, as ComfyUI, A1111 and kohya read it, and NAME.yaml."),
]
LoraKohya = Annotated[
    Path | None,
    typer.Option("--lora-kohya", help="Also the LoRA that it was trained with, as ComfyUI and A1111 read it."),
]

Pretrained = Annotated[Path | None, typer.Option(help="Folder with all parts of a model, as diffusers saves it.")]
Sizes = Annotated[str, typer.Option("--micro-batch-sizes", help="Comma-separated; the smallest first.")]
# What of Train's settings decides how fast it is.
SPEED = {
    *("precision", "compile", "cuda_graphs", "gradient_checkpointing", "optimizer", "shard_optimizer"),
    *("gradient_bucket_mb", "gradient_compression"),
    *("ema_decay", "ema_precision", "prediction_type"),
    *("lora_rank", "lora_alpha", "lora_targets", "lora_text_encoder"),
}


def export(
    context: options.CommandContext,
    model: Annotated[
        str,
        typer.Argument(help="model.tar.gz, its folder or s3:// address; or a model package: ARN, version, `latest`."),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder that is written, for diffusers.")],
    single_file: SingleFile = None,
    lora_kohya: LoraKohya = None,
    half: Annotated[bool, typer.Option("--half", help="Keep all weights in float16: half the size.")] = False,
    hub: Annotated[bool, typer.Option("--hub", help="Also README.md: a model card, as the Hub reads it.")] = False,
    check: Annotated[bool, typer.Option(help="Read back what was written, and draw two denoising steps.")] = True,
) -> None:
    """Export a trained model as a folder for diffusers and as a single file; each draws the model's picture.

    Examples:

      sd-pipeline export latest --out octank --half --single-file octank.safetensors

      sd-pipeline export latest --out octank --hub
    """
    from pipeline_definition.models.model_card import write_card
    from pipeline_definition.models.package_record import PackageFiles

    for option, file in (("--single-file", single_file), ("--lora-kohya", lora_kohya)):
        if file and file.suffix != ".safetensors":
            raise UsageError(f"{option} {file}: its name must end with .safetensors")
    address, package = model, None
    if not Path(model).exists() and not model.startswith(SCHEME):
        if "/" in model and not model.startswith("arn:"):
            raise UsageError(f"{model}: no such file or folder")
        package = find(context.settings, context.target, model)
        address = package.model_uri
    export_model(lambda: context.target, address, out, single_file, half, check, lora_kohya)
    if hub:
        files = PackageFiles(context.target) if package else None
        write_card(out, *((files.record(package), files.ledger(package)) if files and package else (None, {})))


def export_model(
    target: Callable[[], Target],
    address: str,
    out: Path,
    single_file: Path | None,
    half: bool,
    check: bool,
    lora_kohya: Path | None = None,
) -> None:
    """Export the model at a path or an s3:// address of an archive; the program's progress goes to the terminal."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.download.") as folder:
        model = Path(address)
        if address.startswith(SCHEME):
            if not address.endswith(".tar.gz"):
                fix = "copy a folder in S3 to this machine and name the copy"
                raise OperatorError(f"{address}: not a {MODEL_ARCHIVE}; {fix}")
            model = Path(folder) / MODEL_ARCHIVE
            with model.open("wb") as local:
                shutil.copyfileobj(open_object(target().client("s3"), address, MAX_ARCHIVE_BYTES), local)
        values = {"model": model.resolve(), "out": out.resolve(), "half": half, "check": check}
        files = {"single_file": single_file, "lora_kohya": lora_kohya}
        flags = map(str, to_flags(values | {name: file and file.resolve() for name, file in files.items()}))
        _done("export", flags)


def _done(program: str, flags: Iterable[str], **more: Any) -> str:
    done = _run(program, flags, stderr=subprocess.PIPE, text=True, **more)
    if done.returncode != 0:
        last = done.stderr.strip().splitlines()[-1:] or [f"status {done.returncode}"]
        raise OperatorError(last[0].removeprefix("error: "))
    return done.stdout


def _run(
    program: str, flags: Iterable[str], variables: Mapping[str, str] | None = None, **more: Any
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", *ENTRY_POINT[1:], program, *flags]
    environment = {**os.environ, **import_path(options.ROOT), **(variables or {})}
    return subprocess.run(command, env=environment, **more)


def throughput(
    params: options.Params = options.LOCAL_PARAMS,
    sizes: Sizes = "8,16,32,64,128",
    seconds: Annotated[float, typer.Option(help="Measuring time per size.")] = 10.0,
    pretrained: Pretrained = None,
    as_json: options.AsJson = False,
) -> Reply:
    """Measure iterations/s, images/s, MFU and memory at each micro-batch size on this machine; pick the best.

    Examples:

      sd-pipeline throughput --params params/local.yaml --micro-batch-sizes 16,32,64

      sd-pipeline throughput --params params/sd2_base.yaml --pretrained ./stable-diffusion-2-base
    """
    settings = load_settings(params)
    if pretrained is None and settings.local is not None:
        pretrained = options.ROOT / settings.local.pretrained_dir
    if pretrained is None or not any((pretrained / of.denoiser / CONFIG_FILE).is_file() for of in FAMILIES):
        raise UsageError("--pretrained: name a folder with the denoiser's config.json, as diffusers saves it")
    values: dict[str, Any] = settings.train.model_dump(include=SPEED)
    values |= {"throughput_micro_batch_sizes": sizes, "throughput_s": seconds}
    values |= {"random_latents_px": settings.encode.resolution_px}
    with tempfile.TemporaryDirectory(prefix="throughput-") as base:
        data = Path(base, "input", "data")
        data.mkdir(parents=True)
        (data / PRETRAINED_CHANNEL).symlink_to(pretrained.resolve())
        output = subprocess.DEVNULL if as_json else None
        done = _run("throughput", map(str, to_flags(values)), {BASE_DIR_VARIABLE: base}, stdout=output)
        if done.returncode:
            raise OperatorError(f"the measurement ended with status {done.returncode}; its reason is above")
        return Reply(json.loads(Path(base, "output", "data", THROUGHPUT_FILE).read_text(encoding="utf-8")))


picture_app = typer.Typer(no_args_is_help=True, help="Pictures that an endpoint drew.")


@picture_app.command("inspect")
def inspect_picture(
    file: Annotated[Path, typer.Argument(help="PNG, JPEG or WebP.")],
    prompt: Annotated[str | None, typer.Option(help="Say whether it was drawn from this prompt.")] = None,
) -> Reply:
    """Read what a picture says of itself: its signed manifest (model, seed, prompt digest) and its watermark.

    Exit status 1 where it has neither, or its manifest does not hold.

    Example: sd-pipeline picture inspect picture.png --prompt "a small red circle at the top on a blue background"
    """
    found = json.loads(_done("inspect", map(str, to_flags({"file": file.resolve()})), stdout=subprocess.PIPE))
    manifest, mark = found["manifest"], found["watermark"]
    made = (manifest or {}).get("generation", {})
    found["prompt_matches"] = prompt and hashlib.sha256(prompt.encode()).hexdigest() == made.get("prompt_sha256")
    state = f"{manifest['state']}, signed by {manifest.get('signed_by')}" if manifest else "none"
    told = {"manifest": state, "problems": ", ".join((manifest or found).get("problems", ())), **made}
    told["watermark"] = f"{'found' if mark['found'] else 'none'}, {mark['bits']} of {mark['of']} bits"
    told["drawn from this prompt"] = found["prompt_matches"]
    holds = mark["found"] if manifest is None else manifest["state"] != "Invalid"
    lines = (f"{name.replace('_', ' '):23}{value}" for name, value in told.items() if value not in (None, ""))
    return Reply(found, *(line if line.isprintable() else ascii(line) for line in lines), status=not holds)
