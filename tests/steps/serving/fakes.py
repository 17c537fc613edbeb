"""A renderer that the test steers: no torch, no waiting."""

import threading
from collections.abc import Callable, Sequence

from PIL import Image

from steps.serving.errors import AbandonedError
from steps.serving.pictures import Picture, PictureJob, Shape, WarmUp


class FakeRenderer:
    """Draws grey squares whose level is the seed; `gate` holds it, `before` may raise."""

    identity = "fake"
    adapters = ("ink", "oil")

    def __init__(self, before: Callable[[Sequence[PictureJob]], None] | None = None) -> None:
        self.max_batch_size = 4
        self.gate = threading.Event()
        self.gate.set()
        self.loaded = threading.Event()
        self.loaded.set()
        self.started = threading.Event()
        self.batches: list[list[int]] = []
        self.before = before or (lambda jobs: None)
        self.broken = False

    def load(self) -> "FakeRenderer":
        assert self.loaded.wait(30)
        return self

    def refusal(self, shape: Shape, texts: Sequence[str] = ()) -> str:
        return ""

    def warm_up(self) -> WarmUp:
        return WarmUp(0.0, 1.0, 0.0)

    def self_test(self) -> None:
        if self.broken:
            raise RuntimeError("device lost")

    def render(self, shape: Shape, jobs: Sequence[PictureJob], abandoned: Callable[[], bool]) -> list[Picture]:
        self.batches.append([job.seed for job in jobs])
        self.started.set()
        while not self.gate.wait(0.005):
            if abandoned():
                raise AbandonedError
        self.before(jobs)
        size = (shape.width_px, shape.height_px)
        return [Picture(Image.new("RGB", size, (job.seed % 256,) * 3), False, False) for job in jobs]
