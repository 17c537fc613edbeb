"""Two servers that draw unlike pictures, and ballots over them."""

import base64
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image, PngImagePlugin

from pipeline_definition.prompting.comparison import Contender
from pipeline_definition.prompting.endpoint import ServerEndpoint
from pipeline_definition.prompting.votes import Ballot, draw_ballot
from tests.pipeline_definition.prompting.conftest import DrawingServer

PROMPTS = {"a red ring": "colour", "two bars": "count", "three bars": "count"}
COLOURS = {"trained": (200, 40, 40), "generic": (40, 40, 200)}


class Painter(DrawingServer):
    """Draws everything in its colour, and says in the file who it is, as a real endpoint does."""

    def __init__(self, model: str) -> None:
        super().__init__()
        self.model = model

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        about, file = PngImagePlugin.PngInfo(), io.BytesIO()
        about.add_text("model", self.model)
        colour = COLOURS[self.model]
        # Every picture is another one.
        shade = (sum(request["prompt"].encode()) + request["seed"]) % 50
        Image.new("RGB", (64, 64), (*colour[:1], shade, *colour[2:])).save(file, "PNG", pnginfo=about)
        answer = {**super().answer(request), "model": f"arn:{self.model}/1"}
        answer["images"][0]["image"] = base64.b64encode(file.getvalue()).decode()
        return answer


def contenders(servers: Mapping[str, Painter]) -> list[Contender]:
    return [Contender(name, ServerEndpoint(server.url)) for name, server in servers.items()]


def ballot(servers: Mapping[str, Painter], votes: Path, seeds: tuple[int, ...] = (0, 1)) -> Ballot:
    settings = {"num_images": 1, "format": "png"}
    return draw_ballot(contenders(servers), PROMPTS, seeds, settings, votes)


def colour_of(picture: bytes) -> str:
    """Return who drew a picture, by its colour."""
    with Image.open(io.BytesIO(picture)) as image:
        red, _, blue = image.convert("RGB").getpixel((0, 0))  # type: ignore[misc]
    return "trained" if red > blue else "generic"
