"""Plans every picture that an evaluation needs, and generates it, on every device and host of the job.

Reads diffusers pipeline folders; writes the rows' pictures into their stores. A row is a model and how it draws:
`trained`, the one to judge; `untrained`, the same architecture with fresh weights; `pretrained`, the generic model;
`approved`, the one in production; `guidance-N`, the trained one at another guidance scale. Workers take
batches in turn, so a picture's batch does not depend on the number of workers; pictures that a store already holds are
not drawn again, so a killed job resumes.
"""

import platform
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Final

import torch
from torch.multiprocessing.spawn import ProcessRaisedException, spawn
from transformers.utils import logging

from params.model import Decides
from params.programs import EvaluateArguments
from steps.artifact import Identity, digest
from steps.errors import StepError
from steps.evaluation.captions import Prompt, batches, picture_seed
from steps.evaluation.generator import PictureGenerator, SamplingSettings
from steps.evaluation.pictures import PictureStore
from steps.model.adapters import load_judged
from steps.model.families import denoiser_of, load_pipeline
from steps.progress import Progress

TRAINED: Final = "trained"
UNTRAINED: Final = "untrained"
PRETRAINED: Final = "pretrained"
APPROVED: Final = "approved"
WATCH_S: Final = 1.0
LIBRARIES: Final = ("torch", "torchmetrics", "diffusers", "transformers", "numpy", "scipy", "pillow")

DIGEST_LETTERS: Final = 16


@dataclass(frozen=True)
class ModelSource:
    folder: Path
    digest: str
    fresh_weights: bool = False
    """Whether its network is replaced by an untrained one."""


@dataclass(frozen=True)
class PictureSet:
    name: str
    source: ModelSource
    drawing: SamplingSettings
    prompts: Sequence[Prompt]
    folder: Path
    generation: Identity
    """Everything that decides how they look."""
    mirror: str
    """Prefix that outlives the job, or empty."""

    def store(self) -> PictureStore:
        return PictureStore(self.folder, self.generation, self.mirror)

    @property
    def indices(self) -> list[int]:
        return [prompt.index for prompt in self.prompts]


@dataclass(frozen=True)
class Work:
    """What all workers of a job share."""

    rows: Sequence[PictureSet]
    """What to draw: the trained model's row first, rows of one model one after the other."""
    arguments: EvaluateArguments


def generate(work: Work, devices: Sequence[str], host: int = 0, hosts: int = 1) -> None:
    """Draw this host's share of the pictures; on the first host, wait for the others' as well."""
    first, world_size = host * len(devices), len(devices) * hosts
    for row in work.rows:
        # The first host measures, and so it needs the others' pictures, too.
        own = row.indices if host == 0 else _share(work, row, range(first, first + len(devices)), world_size)
        row.store().restore(own)
    progress = Progress("generate", sum(len(row.prompts) for row in work.rows), "pictures", done=_done(work))
    if len(devices) == 1:
        _draw(work, devices[0], host, world_size, progress.advance)
    else:
        draw_in_processes(work, devices, first, world_size, progress)
    if host == 0:
        for row in work.rows:
            row.store().wait(row.indices, lambda: progress.set(_done(work)))
            row.store().tidy()


def _share(work: Work, row: PictureSet, ranks: Iterable[int], world_size: int) -> list[int]:
    shares = (batches(row.prompts, work.arguments.batch_size, rank, world_size) for rank in ranks)
    return [prompt.index for share in shares for batch in share for prompt in batch]


def versions() -> dict[str, str]:
    """Return the version of each library that a metric depends on, of Python, and the device's name."""
    installed = {}
    for name in LIBRARIES:
        with suppress(metadata.PackageNotFoundError):
            installed[name] = metadata.version(name)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    return {**installed, "python": platform.python_version(), "device": device}


def quiet_libraries() -> None:
    """Keep the libraries' progress bars and advice ("torchvision is not installed") out of the job's log."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()


def _draw(work: Work, device: str, rank: int, world_size: int, report: Callable[[int], None]) -> None:
    """Draw the missing batches of worker `rank`; a model is loaded only if one of its pictures is missing."""
    models = _Models(work, device)
    for row in work.rows:
        store, generator = row.store(), None
        for batch in batches(row.prompts, work.arguments.batch_size, rank, world_size):
            indices = [prompt.index for prompt in batch]
            if missing := store.missing(indices):
                generator = generator or models.generator(row)
                # The whole batch, so that its pictures are the same as without the interruption.
                store.write(indices, generator.draw(batch))
                report(len(missing))


class _Models:
    """The models of one worker: one pipeline at a time is in the device's memory."""

    def __init__(self, work: Work, device: str) -> None:
        self._arguments, self._device = work.arguments, torch.device(device)
        self._folder: Path | None = None
        self._generator: PictureGenerator | None = None

    def generator(self, row: PictureSet) -> PictureGenerator:
        source = row.source
        if self._generator is None or self._folder != source.folder:
            self._generator = None  # frees its memory before the next is loaded
            # Training began at the generic model's own weights, whatever lies beside them.
            load = load_pipeline if row.name == PRETRAINED else load_judged
            pipeline = load(source.folder, getattr(torch, self._arguments.precision))
            self._folder, self._generator = source.folder, PictureGenerator(pipeline, row.drawing, self._device)
        network = self._generator.own_network
        if source.fresh_weights:
            network = denoiser_of(source.folder).new(source.folder, self._arguments.seed)
        self._generator.use(network, row.drawing)
        return self._generator


def draw_in_processes(work: Work, devices: Sequence[str], first: int, world_size: int, progress: Progress) -> None:
    """Draw with a process for each device, workers `first` and on. StepError has the message of the first to fail."""
    arguments = (work, list(devices), first, world_size)
    workers = spawn(_worker, arguments, nprocs=len(devices), join=False)  # type: ignore[no-untyped-call]
    try:
        while not workers.join(timeout=WATCH_S):
            progress.set(_done(work))
    except ProcessRaisedException as error:
        # Its text is the worker's traceback, whose last line is the message.
        raise StepError(str(error).strip().rsplit("\n", 1)[-1].removeprefix("steps.errors.StepError: ")) from error


def _worker(local_rank: int, work: Work, devices: Sequence[str], first: int, world_size: int) -> None:
    quiet_libraries()
    _draw(work, devices[local_rank], first + local_rank, world_size, lambda _: None)


def _done(work: Work) -> int:
    return sum(len(row.prompts) - len(row.store().missing(row.indices)) for row in work.rows)


def plan(
    arguments: EvaluateArguments,
    sources: Mapping[str, ModelSource],
    prompts: Sequence[Prompt],
    captions_digest: str,
    size_px: int,
    folders: tuple[Path, Path],
) -> Work:
    """Return the rows to draw.

    `sources` are the models by name: always `trained`, and `pretrained` and `approved` if available. The trained
    model's pictures go into the first of the `folders`, every other row's into a subfolder of the second.
    """
    samples_dir, others_dir = folders
    drawing = SamplingSettings(arguments.guidance_scale, arguments.inference_steps, arguments.sampler, size_px, size_px)
    rows = []
    for name, source, how, samples in _drawn(arguments, sources, drawing):
        if samples:
            folder = samples_dir if name == TRAINED else others_dir / name
            rows.append(_row(arguments, name, source, how, prompts[:samples], folder, captions_digest))
    return Work(rows, arguments)


def with_captions(work: Work, name: str, captions: Sequence[str], others_dir: Path) -> Work:
    """Return the work with one more row, where there are captions: the trained model's pictures of these."""
    if not captions:
        return work
    arguments, first, facts = work.arguments, work.rows[0], digest(list(captions))
    prompts = [Prompt(index, text, picture_seed(arguments.seed, index), None) for index, text in enumerate(captions)]
    row = _row(arguments, name, first.source, first.drawing, prompts, others_dir / name, facts)
    return replace(work, rows=[*work.rows, row])


def _row(
    arguments: EvaluateArguments,
    name: str,
    source: ModelSource,
    drawing: SamplingSettings,
    prompts: Sequence[Prompt],
    folder: Path,
    captions_digest: str,
) -> PictureSet:
    generation = _generation(arguments, source, drawing, len(prompts), captions_digest)
    uri = arguments.samples_uri.rstrip("/")
    mirror = f"{uri}/{digest(generation)[:DIGEST_LETTERS]}" if uri else ""
    return PictureSet(name, source, drawing, prompts, folder, generation, mirror)


def guidance_row(scale: float) -> str:
    return f"guidance-{scale:g}"


def _drawn(
    arguments: EvaluateArguments, sources: Mapping[str, ModelSource], drawing: SamplingSettings
) -> Iterator[tuple[str, ModelSource, SamplingSettings, int]]:
    """Yield name, model, sampling settings and number of pictures of each row, the trained model's own first."""
    trained = sources[TRAINED]
    yield TRAINED, trained, drawing, arguments.samples
    for scale in sorted(set(arguments.guidance_grid) - {arguments.guidance_scale}):
        yield guidance_row(scale), trained, replace(drawing, guidance_scale=scale), arguments.grid_samples
    yield UNTRAINED, replace(trained, fresh_weights=True), drawing, arguments.untrained_samples
    if APPROVED in sources and sources[APPROVED].digest != trained.digest:
        yield APPROVED, sources[APPROVED], drawing, arguments.comparison_samples
    if PRETRAINED in sources:
        at_its_size = replace(drawing, size_px=arguments.pretrained_size_px or drawing.size_px)
        yield PRETRAINED, sources[PRETRAINED], at_its_size, arguments.comparison_samples


def _generation(
    arguments: EvaluateArguments, source: ModelSource, drawing: SamplingSettings, samples: int, captions_digest: str
) -> Identity:
    """Return everything that decides how pictures look.

    A longer evaluation begins with the pictures of a shorter one, so their number is left out, unless it cuts the last
    batch short: rounding differs between batch sizes.
    """
    return {
        **arguments.deciding(arguments.names(Decides.CONTENT)),
        "model_digest": source.digest,
        "fresh_weights": source.fresh_weights,
        "cut_at": samples if samples % arguments.batch_size else None,
        "captions_digest": captions_digest,
        "versions": versions(),
        **asdict(drawing),
    }
