"""What an evaluation generates: its rows, and what their pictures depend on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from params.programs import EvaluateArguments
from steps.evaluation.generation import TRAINED, UNTRAINED, Row, Work
from steps.evaluation.generator import Drawing
from steps.evaluation.prompts import Prompt
from steps.evaluation.provenance import versions

DIGEST_LETTERS = 16


def plan(
    arguments: EvaluateArguments,
    model_dir: Path,
    model_digest: str,
    prompts: Sequence[Prompt],
    size_px: int,
    samples_dir: Path,
) -> Work:
    """Return the work: the trained model's pictures in `samples_dir`, the untrained one's in a folder of it."""
    drawing = Drawing(arguments.guidance_scale, arguments.inference_steps, arguments.sampler, size_px)
    generation = {
        "model_digest": model_digest,
        "precision": arguments.precision,
        # Rounding differs between batch sizes and versions: a picture is kept only where it would come out the same.
        "batch_size": arguments.batch_size,
        "seed": arguments.seed,
        "versions": versions(),
        **asdict(drawing),
    }
    rows = [_row(arguments, TRAINED, prompts, samples_dir, generation)]
    few = prompts[: arguments.untrained_samples]
    if few:
        rows.append(_row(arguments, UNTRAINED, few, samples_dir / UNTRAINED, generation))
    return Work(model_dir, rows, drawing, arguments.batch_size, arguments.precision, arguments.seed)


def _row(
    arguments: EvaluateArguments, name: str, prompts: Sequence[Prompt], folder: Path, shared: dict[str, Any]
) -> Row:
    listed = json.dumps([[prompt.caption, prompt.seed] for prompt in prompts]).encode()
    generation = {**shared, "row": name, "prompts_digest": hashlib.sha256(listed).hexdigest()}
    digest = hashlib.sha256(json.dumps(generation, sort_keys=True).encode()).hexdigest()[:DIGEST_LETTERS]
    mirror = f"{arguments.samples_uri.rstrip('/')}/{digest}" if arguments.samples_uri else ""
    return Row(name, prompts, folder, generation, mirror)
