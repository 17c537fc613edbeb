"""Recipes of training side by side on the local world: the same FLOPs, several seeds, the same judge.

    python -m benchmarks.recipes [--recipes unet-v,sd3] [--seeds 3] [--tflop 5] [--rates 1e-3,2e-3,4e-3]

Draws the grid's pictures, encodes them, and trains each recipe from fresh weights by `python -m steps train`, for as
many samples as its FLOPs allow: of forward and backward pass, and of the optimizer's matrix products, all by torch's
counter. `python -m steps evaluate` then draws the captions that training never saw. Of several --rates a recipe takes
the one with the highest CLIP score for a seed that does not count. Prints means over the seeds with 95 % intervals
(Student's t) and each rate's CLIP score. What ended is kept in --folder, with its contact sheets, and not run again.
"""

import json
import math
import os
import shutil
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import torch
from scipy import stats
from webdataset import TarWriter

from benchmarks import harness
from benchmarks.train.models import METADATA_FILE, draw_captions, read_captions, sign, write_latents
from params import layout
from params.arguments import to_flags
from params.families import CONFIG_FILE
from params.files import write_json
from params.programs import TrainArguments
from pipeline_definition.local.archive import merged_files, write_archive
from shapes import captions
from steps.container import Container
from steps.data.loading.latents import LatentsDataset
from steps.model.denoiser import counted_flops
from steps.model.families import denoiser_of
from steps.training.state import Optimizer
from steps.training.utilisation import training_flops

MODELS: Final = harness.SMALL_MODEL.parent
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


@dataclass(frozen=True)
class TrainingRecipe:
    """What of a recipe differs from COMMON, and from the folder of shapes/models that it starts from."""

    folder: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    network: Mapping[str, Any] = field(default_factory=dict)
    """Changes of the denoiser's configuration."""


FLOW: Final = {"prediction_type": "flow"}
ALIGNED: Final = {"alignment_weight": 0.5}
# Routing leaves the first two and the last two blocks whole, and local_flow.yaml's transformer has no more.
DEEP: Final = {"num_layers": 6}
RECIPES: Final = {
    "unet-v": TrainingRecipe("pretrained"),
    "unet-v-muon": TrainingRecipe("pretrained", {"optimizer": "muon"}),
    "unet-flow": TrainingRecipe("pretrained", FLOW),
    "sd3": TrainingRecipe("pretrained_flow", FLOW),
    "sd3-muon": TrainingRecipe("pretrained_flow", FLOW | {"optimizer": "muon"}),
    "sd3-aligned": TrainingRecipe("pretrained_flow", FLOW | ALIGNED),
    "sd3-deep": TrainingRecipe("pretrained_flow", FLOW, DEEP),
    "sd3-deep-routed": TrainingRecipe("pretrained_flow", FLOW | {"routing_fraction": 0.5}, DEEP),
}
# Of the run that chooses the learning rate.
TRIAL_SEED: Final = 1000


class RecipeBench:
    """The pictures and captions that all recipes share, and what each starts from."""

    def __init__(self, folder: Path, tflop: float) -> None:
        self.folder, self.tflop = folder, tflop
        trained, self.heldout = captions.divided(captions.every())
        if not (folder / "pictures" / METADATA_FILE).exists():
            shutil.rmtree(folder / "heldout", ignore_errors=True)
            shutil.rmtree(folder / "pictures", ignore_errors=True)
            self._write_reference(draw_captions(folder / "heldout", SIDE_PX, self.heldout))
            draw_captions(folder / "pictures", SIDE_PX, trained)

    def pretrained(self, recipe: TrainingRecipe) -> Path:
        """Return the folder that a recipe starts from."""
        source = MODELS / recipe.folder
        if not recipe.network:
            return source
        folder = self.folder / "-".join((recipe.folder, *map(str, recipe.network.values())))
        if not folder.exists():
            draft = folder.with_suffix(".draft")
            shutil.copytree(source, draft, dirs_exist_ok=True)
            denoiser = denoiser_of(draft)
            write_json(draft / denoiser.part / CONFIG_FILE, denoiser.config(source) | dict(recipe.network))
            draft.rename(folder)
        return folder

    def latents(self, recipe: TrainingRecipe) -> Path:
        """Return latents of the pictures, with features where a transformer may be aligned with them."""
        folder, pretrained = self.folder / f"latents-{recipe.folder}", MODELS / recipe.folder
        if not (folder / layout.MANIFEST_FILE).exists():
            denoiser = denoiser_of(pretrained)
            blocks, _, _ = denoiser.blocks(denoiser.config(pretrained))
            vision = MODELS / layout.EVALUATOR / "clip" if blocks else None
            write_latents(folder, self.folder / "pictures", pretrained, torch.device("cpu"), vision)
            sign(folder, pretrained)
        return folder

    def samples_of(self, recipe: TrainingRecipe) -> int:
        """Return how many samples the FLOPs of --tflop train, in whole batches."""
        folder, manifest = self.pretrained(recipe), LatentsDataset(self.latents(recipe)).manifest
        arguments, denoiser = TrainArguments(**COMMON | dict(recipe.settings)), denoiser_of(folder)
        positions = denoiser.reader(folder, manifest.caption_length, None).positions
        of_sample = training_flops(denoiser, denoiser.config(folder), manifest, positions, arguments)
        parameters = dict(denoiser.new(folder, 0).named_parameters())
        for parameter in parameters.values():
            parameter.grad = torch.zeros_like(parameter)
        optimizer = Optimizer(parameters, arguments)
        of_step = counted_flops(lambda: optimizer.step(0.0, torch.zeros(())))
        return GLOBAL_BATCH * int(1e12 * self.tflop / (GLOBAL_BATCH * of_sample + of_step))

    def judged(self, name: str, rate: float, seed: int) -> tuple[float, float, float]:
        """Train and judge one model, unless it was; return CPU-seconds of training, FID and CLIP score."""
        base, recipe = self.folder / f"{name}-{rate:g}-{seed}", RECIPES[name]
        figures = Path(f"{base}.json")
        if not figures.exists():
            shutil.rmtree(base, ignore_errors=True)
            settings = {"training_samples": self.samples_of(recipe), "learning_rate": rate, "seed": seed}
            cpu_s = self._train(Container({layout.BASE_DIR_VARIABLE: str(base)}), recipe, settings)
            metrics = self._judge(Container({layout.BASE_DIR_VARIABLE: str(base)}), recipe, seed, Path(f"{base}.png"))
            own = (cpu_s, metrics[layout.FID]["value"], metrics[layout.CLIP_SCORE]["value"])
            figures.write_text(json.dumps(own), encoding="utf-8")
            shutil.rmtree(base)
            print(base.name, *own, file=sys.stderr, flush=True)
        cpu_s, fid, clip_score = json.loads(figures.read_text(encoding="utf-8"))
        return cpu_s, fid, clip_score

    def _train(self, job: Container, recipe: TrainingRecipe, settings: dict[str, Any]) -> float:
        _link(job.channel_dir("pretrained"), self.pretrained(recipe))
        _link(job.channel_dir("latents"), self.latents(recipe))
        before = os.times()
        _step(job, "train", COMMON | dict(recipe.settings) | settings)
        after = os.times()
        return after.children_user + after.children_system - before.children_user - before.children_system

    def _judge(self, job: Container, recipe: TrainingRecipe, seed: int, contact_sheet: Path) -> dict[str, Any]:
        _link(job.input_dir("pretrained"), self.pretrained(recipe))
        _link(job.input_dir(layout.REFERENCE), self.folder / "heldout")
        _link(job.input_dir(layout.EVALUATOR), MODELS / layout.EVALUATOR)
        write_archive(job.input_dir(layout.MODEL) / layout.MODEL_ARCHIVE, merged_files([job.model_dir]))
        _step(job, "evaluate", JUDGED | {"samples": len(self.heldout), "seed": seed})
        output = job.output_dir(layout.EVALUATION)
        shutil.copy(output / layout.CONTACT_SHEET_FILE, contact_sheet)
        metrics: dict[str, Any] = json.loads((output / layout.METRICS_FILE).read_text(encoding="utf-8"))["metrics"]
        return metrics

    def _write_reference(self, folder: Path) -> None:
        """Make a folder of pictures one of held-out pictures, as Encode writes it."""
        name = layout.REFERENCE_SHARD_PATTERN.format(index=0)
        with TarWriter(str(folder / name)) as tar:
            for picture, text in zip(sorted(folder.glob("*.jpg")), read_captions(folder), strict=True):
                tar.write({"__key__": picture.stem, "jpg": picture.read_bytes(), "txt": text})
        listing = {"resolution_px": SIDE_PX, "shards": [{"name": name}]}
        (folder / layout.MANIFEST_FILE).write_text(json.dumps(listing), encoding="utf-8")


def compare(world: RecipeBench, name: str, rates: Sequence[float], seeds: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a recipe's row, and the CLIP scores of the runs that chose its learning rate."""
    tried = {rate: world.judged(name, rate, TRIAL_SEED)[2] for rate in rates if len(rates) > 1}
    rate = max(tried, key=tried.__getitem__, default=rates[0])
    cpu_s, fid, clip_score = zip(*(world.judged(name, rate, seed) for seed in range(seeds)), strict=True)
    row = {
        "recipe": name,
        "samples": world.samples_of(RECIPES[name]),
        "rate": rate,
        "CPU-s": statistics.mean(cpu_s),
        "FID": with_interval(fid),
        "CLIP score": with_interval(clip_score),
    }
    return row, {"recipe": name, **{f"{rate:g}": score for rate, score in tried.items()}}


def with_interval(values: Sequence[float]) -> str:
    """Return the mean and half the width of its 95 % interval."""
    half = float(stats.t.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / math.sqrt(len(values))
    return f"{statistics.mean(values):.3f} ± {half:.3f}"


def _link(place: Path, source: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(source.resolve())


def _step(job: Container, program: str, flags: dict[str, Any]) -> None:
    command = [sys.executable, "-m", "steps", program, *to_flags(flags)]
    with harness.process(command, **{layout.BASE_DIR_VARIABLE: str(job.base_dir)}) as running:
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
    world, rates = RecipeBench(Path(options.folder), options.tflop), [float(rate) for rate in options.rates.split(",")]
    rows, tried = zip(*(compare(world, name, rates, options.seeds) for name in options.recipes.split(",")), strict=True)
    chosen = {"CLIP score by learning rate": [*tried]} if len(rates) > 1 else {}
    harness.print_result({"recipes": [*rows], **chosen}, options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
