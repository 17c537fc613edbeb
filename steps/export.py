"""Takes a trained model elsewhere: a folder for diffusers, a single file for other programs, in float32 or float16.

    python -m steps export --model model.tar.gz --out octank --half true --single-file octank.safetensors

Reads a model archive or folder, whose checksums are verified. Writes the folder and, last, its checksums.json; the
single file with its yaml; and a LoRA in kohya's format. Each is whole or absent, is read back, and draws the picture
that the model draws.
"""

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from params.arguments import parse
from params.families import INDEX_FILE, VAE
from params.files import PARTIAL, whole_file
from params.layout import CHECKSUMS_FILE
from params.programs import ExportArguments
from steps.errors import StepError
from steps.model.adapters import merged, own_adapter, own_file, write_kohya
from steps.model.archive import unpack_model
from steps.model.digest import checked_digest, write_checksums
from steps.model.families import denoiser_in, denoiser_of, load_pipeline
from steps.model.json_object import read_object
from steps.model.portable import add_vocabulary, make_portable

Drawn = np.ndarray[Any, np.dtype[np.float32]]
# Largest difference of a pixel's value, 0..1, by what the weights are kept in; the check computes in float32.
TOLERANCES: Final = {torch.float32: 1e-4, torch.float16: 0.02}
PROMPT: Final = "a red circle"
CHECK_STEPS: Final = 2
MAX_CHECK_PX: Final = 256
# What runs when it is read, other precisions of the same weights, and what is written anew.
LEFT_OUT: Final = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.py", "*.fp16*", "*.non_ema*", CHECKSUMS_FILE)


def main(argv: list[str]) -> int:
    """Run the program; return its exit status."""
    arguments = parse(ExportArguments, argv, "export")
    out, file = Path(arguments.out), Path(arguments.single_file) if arguments.single_file else None
    kohya = Path(arguments.lora_kohya) if arguments.lora_kohya else None
    for path in filter(None, (out, file, kohya)):
        if path.exists():
            raise StepError(f"{path}: exists already; name another, or remove it")
    dtype = torch.float16 if arguments.half else torch.float32
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.", suffix=PARTIAL) as work:
        source, folder = _unpacked(Path(arguments.model), Path(work)), Path(work) / out.name
        _copy(source, folder, dtype)
        made = Path(work) / "single" / file.name if file else None
        for note in denoiser_of(folder).write_single_file(folder, made, out.name) if made else ():
            print(f"note: {note}", flush=True)
        if arguments.check:
            _check(source, folder, made, TOLERANCES[dtype])
        lora = own_file(folder)
        if kohya:
            _export_lora(folder, lora, kohya, Path(work) / "kohya" / kohya.name, arguments.check)
        elif own_adapter(folder):
            print("note: the weights are those without the adapter; --lora-kohya FILE writes it for other programs")
        if file and made:
            _move(made, file)
        # On one disk: it appears at once.
        shutil.move(folder, out)
    print(f"{out}: {sum(path.stat().st_size for path in out.rglob('*') if path.is_file()) / 1e6:,.1f} MB", flush=True)
    return 0


def _unpacked(model: Path, work: Path) -> Path:
    if model.is_dir():
        folder = model
    else:
        folder = work / "source"
        print(f"unpacking {model}", flush=True)
        unpack_model(model, folder)
    checked_digest(folder)
    read_object(folder / INDEX_FILE)
    for problem in denoiser_of(folder).contradictions(folder, folder):
        raise StepError(f"{model}: {problem}")
    return folder


def _copy(source: Path, folder: Path, dtype: torch.dtype) -> None:
    print(f"copying the model in {str(dtype).removeprefix('torch.')}", flush=True)
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns(*LEFT_OUT))
    denoiser = denoiser_of(folder)
    for part in {VAE, denoiser.part, *denoiser.family.text.values()} - {*denoiser.lacking(folder)}:
        if not any((folder / part).glob("*.safetensors")):
            raise StepError(f"{source / part}: no weights in safetensors; save the model with safe_serialization=True")
        make_portable(folder / part, dtype)
    for tokenizer in denoiser.family.text:
        add_vocabulary(folder / tokenizer)
    write_checksums(folder)


def _move(made: Path, file: Path) -> None:
    for path in sorted(made.parent.iterdir(), reverse=True):
        with whole_file(file.parent / path.name) as partial:
            shutil.move(path, partial)


def _export_lora(folder: Path, lora: Path | None, file: Path, made: Path, check: bool) -> None:
    """Write the model's LoRA in kohya's format. Raises StepError where there is none, or it draws another picture."""
    if lora is None:
        raise StepError(f"lora_kohya {file}: this model was trained without a LoRA; leave it out")
    write_kohya(lora, made)
    if check:
        expected, found = (_drawn(merged(load_pipeline(folder, torch.float32), "lora", one)) for one in (lora, made))
        _compare(file.name, found, expected, TOLERANCES[torch.float32])
    with whole_file(file) as partial:
        shutil.move(made, partial)


def _check(source: Path, folder: Path, file: Path | None, tolerance: float) -> None:
    """Draw from the source and from what was written, with one seed. Raises StepError where the pictures differ."""
    expected = _drawn(load_pipeline(source, torch.float32))
    written: dict[str, Callable[[], Any]] = {"the folder": lambda: load_pipeline(folder, torch.float32)}
    if file:
        written[file.name] = lambda: denoiser_of(folder).load_single_file(file, folder)
    for name, load in written.items():
        _compare(name, _drawn(load()), expected, tolerance)


def _compare(name: str, picture: Drawn, expected: Drawn, tolerance: float) -> None:
    difference = float(np.abs(picture - expected).max())
    # Not "more than": a picture of NaN is no picture.
    if not difference <= tolerance:
        raise StepError(f"{name} draws another picture than the model: a pixel differs by {difference:.4f} of 1")
    print(f"{name} draws the model's picture: {difference:.5f} apart at most, {tolerance} allowed", flush=True)


def _drawn(pipeline: Any) -> Drawn:
    pipeline.set_progress_bar_config(disable=True)
    denoiser = denoiser_in(pipeline)
    side = int(getattr(pipeline, denoiser.part).config.sample_size or 64)
    size_px = min(side * int(pipeline.vae_scale_factor), MAX_CHECK_PX)
    reader = denoiser.reader_of(pipeline)
    wanted, unwanted = (reader.encode(reader.tokens([text])) for text in (PROMPT, ""))
    seed = torch.Generator().manual_seed(0)
    picture: Drawn = pipeline(
        **denoiser.prompts(wanted, unwanted),
        height=size_px,
        width=size_px,
        num_inference_steps=CHECK_STEPS,
        generator=seed,
        output_type="np",
    ).images[0]
    return picture
