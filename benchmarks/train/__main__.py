"""Training speed against diffusers' own text-to-image script, in one process, one after the other and interleaved.

    python -m benchmarks.train --device cpu|cuda [--json]

The script as it is (`diffusers_online`), the script on cached latents (`diffusers_cached`) and this project (`ours`)
train the same network, a UNet or with --family sd3 a flow transformer, at the same batch, with bf16, an average of the
weights and no gradient checkpointing. On a GPU it is Stable Diffusion 2 (865,910,724 parameters) or 3 Medium
(2,028,328,000) at 256 and 512 px over batch sizes; on a CPU the same eight times narrower, at 128 px, on one core, and
a second is one of this process's CPU time. Prints images/s, MFU against the matrix products measured here, peak memory
and the ratios of docs/benchmarks.md. With --parts it measures ours alone, each time with one thing changed (a UNet's
alone), at the last batch size and resolution. Writes to a temporary folder.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import torch

from benchmarks import harness
from benchmarks.train.contest import Task, clock_of, contest, ratio, summary
from benchmarks.train.models import SCALES, Scale, write_latents, write_pictures
from benchmarks.train.ours import estimated_bytes, memory, ours, what_each_buys
from benchmarks.train.script import cached, online
from steps.data.loading.latents import LatentsDataset
from steps.model.families import denoiser_of
from steps.training.identity import device_name
from steps.training.objective import resolved_precision
from steps.training.utilisation import matmul_flops_per_s

CONTENDERS: Final = {"diffusers_online": online, "diffusers_cached": cached, "ours": ours}
DEFAULTS: Final = {
    device: dict(zip(("resolutions", "batch_sizes", "pictures", "workers", "compile"), values, strict=True))
    for device, values in {
        "cuda": ((256, 512), (16, 32, 64, 128), 1024, 8, True),
        "cpu": ((128,), (4, 16), 64, 0, False),
    }.items()
}


def main(argv: list[str]) -> int:
    options = parse(argv)
    device = torch.device(options.device)
    if device.type == "cpu":
        torch.set_num_threads(1)
    scale, precision = SCALES[options.family][device.type], resolved_precision("auto", device)
    result: dict[str, Any] = {
        "model": scale.name,
        "device": device_name(device),
        "precision": precision,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    with tempfile.TemporaryDirectory() as folder:
        made = tasks(options, scale, precision, device, Path(folder))
        if options.memory:
            result["memory"] = memory(list(made))
        elif options.parts:
            task = list(made)[-1]
            result |= {"resolution_px": task.resolution_px, "batch_size": task.batch_size}
            result["parts"] = what_each_buys(task, options.rounds, options.turn_s)
        else:
            result |= compared(options, made)
    harness.print_result(result, options.json)
    return 0


def tasks(
    options: argparse.Namespace, scale: Scale, precision: str, device: torch.device, folder: Path
) -> Iterator[Task]:
    """Yield a task for each resolution and batch size, the largest last."""
    pretrained = scale.write(folder / "pretrained")
    for resolution_px in options.resolutions:
        base = folder / f"{resolution_px}px"
        pictures = write_pictures(base / "pictures", resolution_px, options.pictures)
        latents = write_latents(base / "latents", pictures, pretrained, device)
        for batch_size in options.batch_sizes:
            shape = (resolution_px, batch_size, precision, device)
            how = (options.workers, options.compile, options.cuda_graphs)
            yield Task(pretrained, pictures, latents, *shape, *how)


def compared(options: argparse.Namespace, made: Iterable[Task]) -> dict[str, Any]:
    """Compare ours with diffusers' on every task."""
    comparisons, contenders = [], []
    for task in made:
        comparison, its_contenders = compare(task, options.rounds, options.turn_s)
        comparisons.append(comparison)
        contenders += its_contenders
        print(*harness.table(its_contenders), *harness.lines(comparison), sep="\n", file=sys.stderr, flush=True)
    return {"contenders": contenders, "comparisons": comparisons, "ratios": best(contenders)}


def parse(argv: list[str]) -> argparse.Namespace:
    timing = {"rounds": (3, "turns of all three"), "turn_s": (5.0, "length of a turn")}
    parser = harness.parser("benchmarks.train", __doc__, **timing)
    parser.add_argument("--device", choices=DEFAULTS, default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--family", choices=SCALES, default="unet", help="what is trained")
    parser.add_argument("--resolutions", type=numbers, help="comma-separated, in pixels")
    parser.add_argument("--batch-sizes", type=numbers, help="comma-separated")
    parser.add_argument("--pictures", type=int, help="number of pictures")
    parser.add_argument("--workers", type=int, help="loader processes of the script")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, help="compile ours; on a GPU by default")
    parser.add_argument("--cuda-graphs", action="store_true", help="replay ours as CUDA graphs, where it is compiled")
    parser.add_argument("--parts", action="store_true", help="measure the gain of each part of ours instead")
    parser.add_argument("--memory", action="store_true", help="measure peak memory beside its estimate instead")
    parser.set_defaults(**DEFAULTS[parser.parse_known_args(argv)[0].device])
    options = parser.parse_args(argv)
    if options.parts and options.family != "unet":
        parser.error("--parts: what is changed are parts of a UNet; leave --family out")
    return options


def numbers(text: str) -> tuple[int, ...]:
    return tuple(int(word) for word in text.split(","))


def compare(task: Task, rounds: int, turn_s: float) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the ratios of ours to the others, and the figures of all three."""
    manifest, denoiser = LatentsDataset(task.latents).manifest, denoiser_of(task.pretrained)
    config = denoiser.config(task.pretrained)
    positions = denoiser.reader(task.pretrained, manifest.caption_length, None).positions
    flops = denoiser.flops_of_sample(config, manifest.latent_shape, positions)
    ceiling = matmul_flops_per_s(task.device, task.precision, clock_of(task.device))
    figures = contest(CONTENDERS, task, rounds, turn_s)
    setting = {"resolution_px": task.resolution_px, "batch_size": task.batch_size}
    comparison = {
        **setting,
        "flops_of_sample": flops,
        "matmul_flops_per_s": ceiling,
        "estimated_peak_gb": estimated_bytes(task, {}) / 1e9,
        "vs_diffusers_online": ratio(figures["ours"], figures["diffusers_online"]),
        "vs_diffusers_cached": ratio(figures["ours"], figures["diffusers_cached"]),
    }
    return comparison, [{"contender": name, **setting, **summary(own, flops, ceiling)} for name, own in figures.items()]


def best(contenders: list[dict[str, Any]]) -> dict[str, float | None]:
    """Return the ratios where each side is at its own best batch size, at the largest resolution."""
    largest_px = max(row["resolution_px"] for row in contenders)
    at_best = dict.fromkeys(CONTENDERS, 0.0)
    for row in contenders:
        if row["resolution_px"] == largest_px:
            at_best[row["contender"]] = max(at_best[row["contender"]], row.get("images_per_s", 0.0))
    others = ("diffusers_online", "diffusers_cached")
    return {f"vs_{name}": at_best["ours"] / at_best[name] if at_best[name] else None for name in others}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
