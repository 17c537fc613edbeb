"""Draws a study's pictures; one that is there already is not drawn again.

Writes <folder>/pictures/<model>/<request's digest>.png, each whole or not at all.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from params.files import write_bytes
from pipeline_definition.prompting.endpoint import Endpoint, draw_patiently
from pipeline_definition.prompting.study_plan import StudyPicture

PICTURES_DIR: Final = "pictures"
# A study has time: an endpoint that is busy for so long has another load to carry.
PATIENCE_S: Final = 600.0


@dataclass(frozen=True)
class Drawn:
    """The pictures of a study."""

    model: str
    """What the endpoint says that it draws with."""
    pictures: tuple[Path, ...]
    """In the trials' order."""


def draw_trials(
    endpoint: Endpoint, trials: Sequence[StudyPicture], folder: Path, clients: int, report: Callable[[int], None]
) -> Drawn:
    """Draw what is missing with so many requests at once; `report` counts pictures.

    Raises PromptError for the first request that the endpoint refuses; what is drawn stays.
    """
    # The first says which model it is: another one's pictures are not this study's.
    first = draw_patiently(endpoint, trials[0].request, PATIENCE_S)
    pictures = folder / PICTURES_DIR / hashlib.sha256(first.model.encode()).hexdigest()[:12]
    pictures.mkdir(parents=True, exist_ok=True)
    write_bytes(pictures / trials[0].file_name, first.pictures[0].content)
    paths = tuple(pictures / trial.file_name for trial in trials)

    def draw(trial: StudyPicture, path: Path) -> None:
        if not path.is_file():
            write_bytes(path, draw_patiently(endpoint, trial.request, PATIENCE_S).pictures[0].content)
        report(1)

    with ThreadPoolExecutor(clients) as pool:
        jobs = [pool.submit(draw, trial, path) for trial, path in zip(trials, paths, strict=True)]
        done, _ = wait(jobs, return_when=FIRST_EXCEPTION)
        for job in jobs:
            job.cancel()
    for job in done:
        job.result()
    return Drawn(first.model, paths)
