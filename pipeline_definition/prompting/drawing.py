"""Many pictures of one endpoint, each drawn once: what was drawn stays where a study or a vote is resumed.

Reads an endpoint; writes <folder>/pictures/<model>/<request's digest>.png, each whole or not at all.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, Final

from params.files import write_bytes
from pipeline_definition.prompting.endpoint import Endpoint, draw_patiently

PICTURES_DIR: Final = "pictures"
# There is time: an endpoint that is busy for longer has another load to carry.
PATIENCE_S: Final = 600.0


def draw_all(
    endpoint: Endpoint,
    requests: Sequence[Mapping[str, Any]],
    folder: Path,
    clients: int = 8,
    report: Callable[[int], None] = lambda count: None,
) -> tuple[str, tuple[Path, ...]]:
    """Draw what is missing, a PNG for each request, `clients` at once; `report` counts pictures.

    Returns the model that the endpoint says it draws with, and the pictures in the requests' order.

    Raises PromptError for the first request that the endpoint refuses; what is drawn stays.
    """
    # The first answer names the model: pictures of another model do not belong with these.
    first = draw_patiently(endpoint, requests[0], PATIENCE_S)
    pictures = folder / PICTURES_DIR / hashlib.sha256(first.model.encode()).hexdigest()[:12]
    pictures.mkdir(parents=True, exist_ok=True)
    paths = tuple(pictures / file_name(request) for request in requests)
    write_bytes(paths[0], first.pictures[0].content)

    def draw(request: Mapping[str, Any], path: Path) -> None:
        if not path.is_file():
            write_bytes(path, draw_patiently(endpoint, request, PATIENCE_S).pictures[0].content)
        report(1)

    with ThreadPoolExecutor(clients) as pool:
        jobs = [pool.submit(draw, *one) for one in zip(requests, paths, strict=True)]
        done, _ = wait(jobs, return_when=FIRST_EXCEPTION)
        for job in jobs:
            job.cancel()
    for job in done:
        job.result()
    return first.model, paths


def file_name(request: Mapping[str, Any]) -> str:
    """Return the name of a request's picture: the same request, the same name."""
    return hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()[:20] + ".png"
