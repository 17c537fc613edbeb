"""Recipes of training side by side on the local world: the same FLOPs, several seeds, the same judge.

    python -m benchmarks.recipes [--recipes adamw,muon] [--seeds 3] [--tflop 5] [--rates 1e-3,2e-3,4e-3]

Draws the grid's pictures, encodes them, and trains each recipe from fresh weights by `python -m steps train`, for as
many samples as its FLOPs allow: of forward and backward pass, and of the optimizer's matrix products, all by torch's
counter. `python -m steps evaluate` then draws the captions that training never saw. A recipe's learning rate is the
one with the lowest FID for a seed that does not count. Prints means over the seeds with 95 % intervals (Student's t)
and each rate's FID; the contact sheets lie in --folder.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import torch
from scipy import stats
from torch.utils.flop_counter import FlopCounterMode
from webdataset import TarWriter

from benchmarks import harness
from benchmarks.train.pictures import draw_captions, read_captions, sign, write_latents
from params.arguments import to_flags
from params.layout import (
    BASE_DIR_VARIABLE,
    CLIP_SCORE,
    CONTACT_SHEET_FILE,
    EVALUATION,
    EVALUATOR,
    FID,
    MANIFEST_FILE,
    METRICS_FILE,
    MODEL,
    MODEL_ARCHIVE,
    REFERENCE,
    REFERENCE_SHARD_PATTERN,
)
from params.programs import TrainArguments
from pipeline_definition.local.archive import merged_files, write_archive
from shapes import captions
from steps.container import Container
from steps.data.loading.latents import LatentsDataset
from steps.model.families import denoiser_of
from steps.training.optimizer import Optimizer

SIDE_PX: Final = 64
GLOBAL_BATCH: Final = 32
# What all recipes share: params/local.yaml's training.
COMMON: Final[dict[str, Any]] = {
    "global_batch_size": GLOBAL_BATCH,
    "micro_batch_size": GLOBAL_BATCH,
    "learning_rate_schedule": "cosine",
    "warmup_samples": 20 * GLOBAL_BATCH,
    "prediction_type": "v_prediction",
    "ema_decay": 0.995,
    "ema_reference_samples": 64,
    "precision": "float32",
    "validation_samples": 128,
    "validate_every_samples": 1_000_000,
    "save_every_samples": 1_000_000,
    "latents_wait_s": 0.0,
}
JUDGED: Final[dict[str, Any]] = {
    "batch_size": 64,
    "guidance_scale": 3.0,
    "inference_steps": 15,
    "sampler": "dpm++",
    "untrained_samples": 0,
    "grid_samples": 0,
    "comparison_samples": 0,
    "contact_sheet_samples": 24,
    "precision": "float32",
    "fid_features": "clip",
}
RECIPES: Final[dict[str, dict[str, Any]]] = {
    "adamw": {},
    "muon": {"optimizer": "muon"},
}
# Of the run that chooses the learning rate.
TRIAL_SEED: Final = 1000


class World:
    """The pictures, latents and captions that all recipes share."""

    def __init__(self, folder: Path, options: argparse.Namespace) -> None:
        self.folder, self.options = folder, options
        self.pretrained = harness.SMALL_MODEL
        grid = captions.every()
        trained = [caption for caption in grid if not captions.is_heldout(caption.text())]
        self.heldout = [caption for caption in grid if captions.is_heldout(caption.text())]
        if not (folder / "latents").exists():
            self._write_reference(draw_captions(folder / "heldout", SIDE_PX, self.heldout))
            pictures = draw_captions(folder / "pictures", SIDE_PX, trained)
            write_latents(folder / "latents", pictures, self.pretrained, torch.device("cpu"))
            sign(folder / "latents", self.pretrained)

    def samples_of(self, settings: dict[str, Any]) -> int:
        """Return how many samples the FLOPs of --tflop train, in whole batches."""
        arguments, denoiser = TrainArguments(**settings), denoiser_of(self.pretrained)
        manifest, config = LatentsDataset(self.folder / "latents").manifest, denoiser.config(self.pretrained)
        of_batch = GLOBAL_BATCH * denoiser.flops_of_sample(config, manifest.latent_shape, manifest.caption_length)
        parameters = dict(denoiser.new(self.pretrained, 0).named_parameters())
        for parameter in parameters.values():
            parameter.grad = torch.zeros_like(parameter)
        with FlopCounterMode(display=False) as counter:
            Optimizer(parameters, arguments).step(0.0, torch.zeros(()))
        return GLOBAL_BATCH * int(1e12 * self.options.tflop / (of_batch + counter.get_total_flops()))

    def judged(self, recipe: str, rate: float, seed: int) -> tuple[float, float, float]:
        """Train and judge one model, unless it was; return CPU-seconds of training, FID and CLIP score."""
        base = self.folder / f"{recipe}-{rate:g}-{seed}"
        figures = Path(f"{base}.json")
        if not figures.exists():
            shutil.rmtree(base, ignore_errors=True)
            samples = self.samples_of(COMMON | RECIPES[recipe])
            settings = COMMON | RECIPES[recipe] | {"training_samples": samples, "learning_rate": rate, "seed": seed}
            cpu_s = self._train(Container({BASE_DIR_VARIABLE: str(base)}), settings)
            metrics = self._judge(Container({BASE_DIR_VARIABLE: str(base)}), seed, Path(f"{base}.png"))
            own = (cpu_s, metrics[FID]["value"], metrics[CLIP_SCORE]["value"])
            figures.write_text(json.dumps(own), encoding="utf-8")
            shutil.rmtree(base)
            print(base.name, samples, *own, file=sys.stderr, flush=True)
        cpu_s, fid, clip_score = json.loads(figures.read_text(encoding="utf-8"))
        return cpu_s, fid, clip_score

    def _train(self, job: Container, settings: dict[str, Any]) -> float:
        _link(job.channel_dir("pretrained"), self.pretrained)
        _link(job.channel_dir("latents"), self.folder / "latents")
        before = os.times()
        _step(job, "train", settings)
        after = os.times()
        return after.children_user + after.children_system - before.children_user - before.children_system

    def _judge(self, job: Container, seed: int, contact_sheet: Path) -> dict[str, Any]:
        _link(job.input_dir("pretrained"), self.pretrained)
        _link(job.input_dir(REFERENCE), self.folder / "heldout")
        _link(job.input_dir(EVALUATOR), harness.SMALL_MODEL.parent / EVALUATOR)
        write_archive(job.input_dir(MODEL) / MODEL_ARCHIVE, merged_files([job.model_dir]))
        _step(job, "evaluate", JUDGED | {"samples": len(self.heldout), "seed": seed})
        output = job.output_dir(EVALUATION)
        shutil.copy(output / CONTACT_SHEET_FILE, contact_sheet)
        metrics: dict[str, Any] = json.loads((output / METRICS_FILE).read_text(encoding="utf-8"))["metrics"]
        return metrics

    def _write_reference(self, folder: Path) -> None:
        """Make a folder of pictures one of held-out pictures, as Encode writes it."""
        name = REFERENCE_SHARD_PATTERN.format(index=0)
        with TarWriter(str(folder / name)) as tar:
            for picture, text in zip(sorted(folder.glob("*.jpg")), read_captions(folder), strict=True):
                tar.write({"__key__": picture.stem, "jpg": picture.read_bytes(), "txt": text})
        listing = {"resolution_px": SIDE_PX, "shards": [{"name": name}]}
        (folder / MANIFEST_FILE).write_text(json.dumps(listing), encoding="utf-8")


def compare(world: World, recipe: str, rates: Sequence[float], seeds: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a recipe's row, and the FID of the runs that chose its learning rate."""
    tried = {f"{rate:g}": world.judged(recipe, rate, TRIAL_SEED)[1] for rate in rates}
    rate = min(rates, key=lambda rate: tried[f"{rate:g}"])
    cpu_s, fid, clip_score = zip(*(world.judged(recipe, rate, seed) for seed in range(seeds)), strict=True)
    row = {
        "recipe": recipe,
        "samples": world.samples_of(COMMON | RECIPES[recipe]),
        "rate": rate,
        "CPU-s": statistics.mean(cpu_s),
        "FID": with_interval(fid),
        "CLIP score": with_interval(clip_score),
    }
    return row, {"recipe": recipe, **tried}


def with_interval(values: Sequence[float]) -> str:
    """Return the mean and half the width of its 95 % interval."""
    half = float(stats.t.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / math.sqrt(len(values))
    return f"{statistics.mean(values):.3f} ± {half:.3f}"


def _link(place: Path, source: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(source.resolve())


def _step(job: Container, program: str, flags: dict[str, Any]) -> None:
    command = [sys.executable, "-m", "steps", program, *to_flags(flags)]
    with harness.process(command, **{BASE_DIR_VARIABLE: str(job.base_dir)}) as running:
        if running.wait() != 0:
            raise SystemExit(f"error: {program} in {job.base_dir} ended with status {running.returncode}")


def main(argv: list[str]) -> int:
    options = harness.parser(
        "benchmarks.recipes",
        __doc__,
        recipes=(",".join(RECIPES), "what to compare"),
        seeds=(3, "runs of each, 2 or more"),
        tflop=(5.0, "of training, for each run"),
        rates=("1e-3,2e-3,4e-3", "learning rates to choose from"),
        folder=("runs/recipes", "where runs that ended are kept: they are not run again"),
    ).parse_args(argv)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    world, rates = World(Path(options.folder), options), [float(rate) for rate in options.rates.split(",")]
    rows, tried = zip(
        *(compare(world, recipe, rates, options.seeds) for recipe in options.recipes.split(",")), strict=True
    )
    harness.print_result({"recipes": [*rows], "FID by learning rate": [*tried]}, options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
