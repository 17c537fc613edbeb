"""Stable Diffusion 2 at its real size through the project's own programs on this machine: bytes, seconds, peak memory.

    python -m benchmarks.fullsize [--ranks 0] [--width 1] [--pictures 64] [--folder DIR] [--json]     # make fullsize

Builds stable-diffusion-2-base's layout with random weights (`--width 2`: half as wide, a quarter of the weights),
encodes drawn pictures at 256 px, trains one step and then, from its checkpoint, a second one, exports and packs the
model, and serves one picture of two denoising steps. Each stage has processes of its own; its peak is the memory that
they have to themselves, sampled twice a second. `--ranks 0` takes two ranks where their estimate fits what is
available, and otherwise one, and says so. An out-of-memory killer is told to take these processes first.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psutil
import torch

from benchmarks import harness
from benchmarks.train.models import ENCODED_AT_ONCE, Scale, sign, write_latents, write_pictures
from params.arguments import to_flags
from params.families import TEXT_ENCODER
from params.memory import state_bytes
from params.programs import TrainArguments
from steps.model.families import denoiser_of
from steps.model.pretrained import empty_text_encoders, part_config
from steps.training.peak_memory import FakeNetwork, encoding_bytes, parameter_count

SIDE_PX: Final = 256
LATENT_SHAPE: Final = (4, SIDE_PX // 8, SIDE_PX // 8)
CAPTION_LENGTH: Final = 77
SAMPLED_EVERY_S: Final = 0.5
OOM_SCORE: Final = Path("/proc/self/oom_score_adj")
# A process with torch, diffusers and transformers before it has a model.
PROCESS_BYTES: Final = 600_000_000
# What takes least memory of the settings, with an average of the weights.
TRAINING: Final[dict[str, Any]] = {
    "micro_batch_size": 1,
    "warmup_samples": 0,
    "precision": "float32",
    "gradient_checkpointing": True,
    "shard_optimizer": True,
    "ema_precision": "bfloat16",
    "validation_samples": 2,
    "validate_every_samples": 1_000_000,
    "save_every_samples": 1_000_000,
    "keep_checkpoints": 1,
    "log_every_steps": 1,
    "collective_timeout_s": 3600.0,
    "latents_wait_s": 0.0,
}


@dataclass
class Stage:
    stage: str
    files_gb: float = 0.0
    """That it left."""
    seconds: float = 0.0
    peak_gb: float = 0.0
    estimated_gb: float | None = None


@dataclass
class Rehearsal:
    options: argparse.Namespace
    folder: Path
    stages: list[Stage] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.pretrained, self.job = self.folder / "pretrained", self.folder / "train"

    def run(self) -> dict[str, Any]:
        with self.stage("build", self.pretrained):
            harness.in_new_processes(_build, [(self.options.width, self.pretrained)])
        ranks = self.ranks()
        self.encode()
        for step in (1, 2):
            self.train(ranks, step)
        self.pack()
        self.serve()
        figures = [vars(stage) for stage in self.stages]
        return {"width": self.options.width, "ranks": ranks, "pictures": self.options.pictures, "stages": figures}

    def encode(self) -> None:
        """Encode drawn pictures by the VAE alone: `python -m steps encode` refuses one with random weights."""
        config = part_config(self.pretrained, "vae")
        estimated = PROCESS_BYTES + encoding_bytes(config, torch.float32, ENCODED_AT_ONCE, SIDE_PX)
        with self.stage("encode", self.folder / "latents", estimated):
            harness.in_new_processes(_draw_and_encode, [(self.folder, self.options.pictures)])
            sign(self.folder / "latents", self.pretrained)

    def train(self, ranks: int, step: int) -> None:
        """Run `python -m steps train` to the end of one step; the second goes on from the first one's checkpoint."""
        data = self.job / "input" / "data"
        data.mkdir(parents=True, exist_ok=True)
        for channel in ("pretrained", "latents"):
            if not (data / channel).exists():
                (data / channel).symlink_to(self.folder / channel)
        flags = to_flags(TRAINING | {"global_batch_size": ranks, "training_samples": ranks * step})
        launcher = ["-m", "torch.distributed.run", "--nproc-per-node", str(ranks)] if ranks > 1 else []
        launcher += ["--master-port", str(harness.free_port())] if ranks > 1 else []
        name = "train step 1, checkpoint, export" if step == 1 else "read it, train step 2, checkpoint, export"
        with self.stage(name, self.job, self.estimated_training_bytes(ranks)):
            self.call([sys.executable, *launcher, "-m", "steps", "train", *flags], self.job)
        log = (self.job / "model" / "training_log.jsonl").read_text(encoding="utf-8").splitlines()
        steps = sorted({json.loads(line)["seen_samples"] for line in log if "training_loss" in line})
        if steps != [ranks * number for number in range(1, step + 1)]:
            raise SystemExit(f"error: the log holds steps that end at {steps} samples: the checkpoint was not read")

    def pack(self) -> None:
        """Pack the model as the local engine does, and unpack it as the endpoint's host finds it."""
        archive, model = self.folder / "model.tar.gz", self.folder / "serve" / "model"
        program = "import sys; from pathlib import Path; from steps.model.archive import unpack_model; "
        program += "from pipeline_definition.local.archive import merged_files, write_archive; "
        program += "source, archive, target = map(Path, sys.argv[1:]); "
        program += "write_archive(archive, merged_files([source])); unpack_model(archive, target)"
        with self.stage("pack and unpack", archive):
            self.call([sys.executable, "-c", program, str(self.job / "model"), str(archive), str(model)])
        shutil.rmtree(self.job)

    def serve(self) -> None:
        picture = self.folder / "picture.png"
        # A CPU has no arithmetic in float16, the endpoint's default; a batch's warm-up draws every size up to it.
        flags = {"inference_steps": 2, "default_size_px": SIDE_PX, "max_size_px": SIDE_PX, "timeout_s": 59.0}
        flags |= {"precision": "float32", "max_batch_size": 1}
        command, base = [sys.executable, "-m", "steps", "serve", *to_flags(flags)], str(self.folder / "serve")
        with (
            self.stage("serve one picture", picture),
            harness.serving(command, "/ping", SAGEMAKER_BASE_DIR=base) as (address, _),
        ):
            body = json.dumps({"prompt": "a red circle", "seed": 7}).encode()
            head = {"Content-Type": "application/json", "Accept": "image/png"}
            asked = urllib.request.Request(f"{address}/invocations", body, head)
            with urllib.request.urlopen(asked, timeout=3600) as answer:
                picture.write_bytes(answer.read())

    def ranks(self) -> int:
        """Return how many ranks are asked for, or fit."""
        available = psutil.virtual_memory().available
        asked = self.options.ranks or (2 if self.estimated_training_bytes(2) <= available else 1)
        needed = self.estimated_training_bytes(asked)
        figures = f"about {needed / 1e9:.1f} GB of {available / 1e9:.1f} available"
        print(f"{asked} ranks take {figures}", file=sys.stderr, flush=True)
        if needed > available:
            raise SystemExit(f"error: training takes {figures}; free some, or set --ranks 1 or --width 2")
        return int(asked)

    def estimated_training_bytes(self, ranks: int) -> float:
        """Return the peak of all ranks together, the text encoder and what comes on top of the state included."""
        arguments, denoiser = TrainArguments(**TRAINING), denoiser_of(self.pretrained)
        network = FakeNetwork(denoiser, denoiser.config(self.pretrained), arguments.precision, True)
        whole, each = (state_bytes(network.parameters, 0, arguments, count) for count in (1, ranks))
        text = 4 * parameter_count(empty_text_encoders(self.pretrained, denoiser.family)[TEXT_ENCODER])
        passing = ranks * network.pass_bytes(1, LATENT_SHAPE, CAPTION_LENGTH)
        # The first rank gathers the others' part for a checkpoint. While the average stands in for the weights, they
        # are kept aside; one rank alone has no gradients then.
        kept_aside = 4 * network.parameters if ranks > 1 else 0
        return ranks * (each + text + PROCESS_BYTES) + max(passing, whole - each, kept_aside)

    def call(self, command: Sequence[str], base: Path | None = None) -> None:
        with harness.process(command, SAGEMAKER_BASE_DIR=str(base or self.folder)) as process:
            if process.wait() != 0:
                raise SystemExit(f"error: {' '.join(command[:5])} ended with status {process.returncode}")

    @contextmanager
    def stage(self, name: str, left: Path, estimated_bytes: float | None = None) -> Iterator[None]:
        """Measure what happens in the block, in this process's children."""
        estimated_gb = None if estimated_bytes is None else estimated_bytes / 1e9
        stage, ended, start_s = Stage(name, estimated_gb=estimated_gb), threading.Event(), time.monotonic()
        watcher = threading.Thread(target=_watch, args=(stage, ended))
        watcher.start()
        try:
            yield
        finally:
            ended.set()
            watcher.join()
        stage.seconds = time.monotonic() - start_s
        stage.files_gb = sum(file.stat().st_size for file in ([left] if left.is_file() else left.rglob("*"))) / 1e9
        self.stages.append(stage)
        print(stage, file=sys.stderr, flush=True)


def _build(width: int, folder: Path) -> None:
    Scale("fullsize", width, vocabulary=49_408).write(folder)


def _draw_and_encode(folder: Path, count: int) -> None:
    drawn = write_pictures(folder / "pictures", SIDE_PX, count)
    write_latents(folder / "latents", drawn, folder / "pretrained", torch.device("cpu"))


def _watch(stage: Stage, ended: threading.Event) -> None:
    while not ended.wait(SAMPLED_EVERY_S):
        own = 0
        for process in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):
                memory = process.memory_info()
                own += memory.rss - memory.shared
        stage.peak_gb = max(stage.peak_gb, own / 1e9)


def main(argv: list[str]) -> int:
    options = harness.parser(
        "benchmarks.fullsize",
        __doc__,
        ranks=(0, "training processes; 0: two where they fit, else one"),
        width=(1, "narrower by this factor"),
        pictures=(64, "pictures to encode"),
        folder=("", "where the files go; a temporary one"),
    ).parse_args(argv)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if OOM_SCORE.exists():
        OOM_SCORE.write_text("1000")
    if options.folder:
        Path(options.folder).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.folder or None, prefix="fullsize-") as folder:
        harness.print_result(Rehearsal(options, Path(folder)).run(), options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
