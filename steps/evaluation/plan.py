"""Plans what an evaluation generates: its rows, and what decides how their pictures look."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Final

from params.model import Decides
from params.programs import EvaluateArguments
from steps.artifact import Identity, digest
from steps.evaluation.generation import APPROVED, PRETRAINED, TRAINED, UNTRAINED, ModelSource, PictureSet, Work
from steps.evaluation.generator import SamplingSettings
from steps.evaluation.prompts import Prompt
from steps.evaluation.provenance import versions

DIGEST_LETTERS: Final = 16


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

    def row(name: str, source: ModelSource, how: SamplingSettings, samples: int, folder: Path) -> PictureSet:
        generation = _generation(arguments, source, how, min(samples, len(prompts)), captions_digest)
        uri = arguments.samples_uri.rstrip("/")
        mirror = f"{uri}/{digest(generation)[:DIGEST_LETTERS]}" if uri else ""
        return PictureSet(name, source, how, prompts[:samples], folder, generation, mirror)

    rows = [row(TRAINED, sources[TRAINED], drawing, len(prompts), samples_dir)]
    for name, source, how, samples in _others(arguments, sources, drawing):
        if samples:
            rows.append(row(name, source, how, samples, others_dir / name))
    return Work(rows, arguments)


def guidance_row(scale: float) -> str:
    """Return the name of the row at a guidance scale."""
    return f"guidance-{scale:g}"


def _others(
    arguments: EvaluateArguments, sources: Mapping[str, ModelSource], drawing: SamplingSettings
) -> Iterator[tuple[str, ModelSource, SamplingSettings, int]]:
    """Yield name, model, sampling settings and number of pictures of each row other than the trained model's own."""
    trained = sources[TRAINED]
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
