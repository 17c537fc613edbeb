"""Scores pictures against their captions: the CLIP score of each, for tools that compare prompts and models.

    python -m steps score --pictures pairs.jsonl --evaluator shapes/models/evaluator --scores scores.json

Reads one JSON object a line, {"picture": path, "caption": text} (a relative path counts from the file's own folder),
and the evaluator's CLIP (clip/, or a Hugging Face cache). Writes {"clip": digest, "scores": [cosine, ...]} in the
order of the lines, whole or not at all.
"""

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image, UnidentifiedImageError

from params.arguments import parse
from params.files import write_text
from params.programs import ScoreArguments
from steps.device import choose_device
from steps.errors import StepError
from steps.evaluation.clip_scorer import ClipEvaluator, ClipScorer, find_clip
from steps.evaluation.reference import Pictures
from steps.model.pretrained import folder_digest

BATCH_SIZE: Final = 64


def main(argv: list[str]) -> int:
    """Run the program; return its exit status."""
    arguments = parse(ScoreArguments, argv, "score")
    pairs = read_pairs(Path(arguments.pictures))
    clip_dir = find_clip(Path(arguments.evaluator))
    scorer = ClipScorer(ClipEvaluator(clip_dir, choose_device()))
    for pictures, captions in batches(pairs):
        scorer.update(pictures, captions)
    result = {"clip": folder_digest(clip_dir), "scores": scorer.cosines().tolist()}
    write_text(Path(arguments.scores), json.dumps(result))
    return 0


def read_pairs(path: Path) -> list[tuple[Path, str]]:
    """Return each picture with its caption. Raises StepError that names the line where it is none."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise StepError(f"{path}: cannot be read: {error}") from None
    pairs = []
    for number, line in enumerate(lines, 1):
        try:
            entry = json.loads(line)
            pairs.append((path.parent / str(entry["picture"]), str(entry["caption"])))
        except (ValueError, KeyError, TypeError):
            raise StepError(f'{path}:{number}: not {{"picture": path, "caption": text}}') from None
    if not pairs:
        raise StepError(f"{path}: names no pictures")
    return pairs


def read_picture(path: Path) -> Pictures:
    """Return a picture, (H, W, 3) uint8. Raises StepError that names a file that is none."""
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise StepError(f"{path}: cannot be read as a picture: {error}") from None


def batches(pairs: list[tuple[Path, str]]) -> Iterator[tuple[Pictures, list[str]]]:
    """Yield pictures, (N, H, W, 3) uint8, with their captions: neighbours of one size together."""
    loaded = ((read_picture(picture), caption) for picture, caption in pairs)
    for _, alike in itertools.groupby(loaded, key=lambda item: item[0].shape):
        while batch := list(itertools.islice(alike, BATCH_SIZE)):
            yield np.stack([picture for picture, _ in batch]), [caption for _, caption in batch]
