"""The one thread that owns the model: it loads it, warms it up, and draws batch after batch.

Whatever goes wrong, every request ends with a picture or an error: a failing batch is halved until the
request that breaks it is alone; a dying thread is replaced by a new one; a model that fails its self-test, or that
makes no step for too long, ends the process, so that the platform starts another.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, Literal

from steps.errors import StepError
from steps.serving.batch_queue import BatchQueue, Slot
from steps.serving.errors import AbandonedError, RenderError
from steps.serving.metrics import ServingMetrics

if TYPE_CHECKING:
    from steps.serving.renderer import PipelineRenderer

logger = logging.getLogger(__name__)

State = Literal["loading", "ready", "failed", "stopped"]
# A thread that dies again and again, with nothing drawn in between, will not recover.
MAX_DEATHS: Final = 3


class ModelWorker:
    """The model's thread and its state."""

    def __init__(self, load: Callable[[], "PipelineRenderer"], queue: BatchQueue, metrics: ServingMetrics) -> None:
        self._load, self._queue, self._metrics = load, queue, metrics
        self.renderer: PipelineRenderer | None = None
        """None until it is loaded and warmed up."""
        self._thread: threading.Thread | None = None
        # A thread that is assigned and not yet started looks like one that died.
        self._starting = threading.Lock()
        self._batch: Sequence[Slot] = ()
        self._last_step_s = time.monotonic()
        self._deaths = 0
        self._steps = 0
        self.state: State = "loading"
        self.failure = ""

    @property
    def identity(self) -> str:
        """What its pictures say they were made by."""
        return self.renderer.identity if self.renderer else ""

    @property
    def alive(self) -> bool:
        with self._starting:
            return self._thread is not None and self._thread.is_alive()

    def start(self) -> None:
        """Begin to load the model, and then to work."""
        with self._starting:
            self._thread = threading.Thread(target=self._run, name="model", daemon=True)
            self._thread.start()

    def stop(self, timeout_s: float) -> None:
        """Let it finish what the queue holds, for at most `timeout_s`."""
        self._queue.close()
        if self._thread is not None:
            self._thread.join(timeout_s)

    def stalled(self, limit_s: float) -> bool:
        """Whether a batch has made no step for longer than `limit_s`: the device hangs."""
        return bool(self._batch) and time.monotonic() - self._last_step_s > limit_s

    def fail(self, reason: str) -> None:
        """End every request with an error; the process must go."""
        logger.error(reason)
        error = RenderError(reason)
        self.failure = reason
        self._queue.abandon(error)
        self.state = "failed"
        for slot in list(self._batch):
            slot.ticket.fail(error)

    def _run(self) -> None:
        try:
            renderer = self.renderer or self._start_up()
            if renderer is not None:
                self._work(renderer)
        except BaseException as error:
            self._replace_thread(error)

    def _start_up(self) -> "PipelineRenderer | None":
        started_s = time.monotonic()
        try:
            renderer = self._load()
            warm_up = renderer.warm_up()
        except StepError as error:
            self.fail(str(error))
            return None
        except Exception as error:
            logger.exception("the model cannot be loaded")
            self.fail(f"the model cannot be loaded: {type(error).__name__}: {error}")
            return None
        self._queue.max_batch_size = renderer.max_batch_size
        self._queue.learn(warm_up.work, warm_up.seconds)
        self._metrics.load_s.set(time.monotonic() - started_s)
        self._metrics.deviation.set(warm_up.deviation)
        self._metrics.model.info({"identity": renderer.identity})
        load_s = round(time.monotonic() - started_s, 3)
        fields = {"model": renderer.identity, "load_s": load_s, "batch_deviation": warm_up.deviation}
        logger.info("the model is ready", extra={"fields": fields})
        self.renderer, self.state = renderer, "ready"
        return renderer

    def _work(self, renderer: "PipelineRenderer") -> None:
        while slots := self._queue.next_batch():
            self._batch, self._last_step_s = slots, time.monotonic()
            self._draw(renderer, slots)
            self._batch = ()
        if self.state != "failed":
            self.state = "stopped"

    def _draw(self, renderer: "PipelineRenderer", slots: Sequence[Slot]) -> None:
        shape = slots[0].ticket.shape
        started_s, self._steps = time.monotonic(), 0
        try:
            pictures = renderer.render(shape, [slot.job for slot in slots], lambda: self._step(slots))
        except AbandonedError:
            # Too slow for its clients: the queue must learn of that, too.
            done = self._steps / shape.steps
            self._queue.learn(done * len(slots) * shape.work, time.monotonic() - started_s)
            return
        except Exception as error:
            self._after_failure(renderer, slots, error)
            return
        self._queue.learn(len(slots) * shape.work, time.monotonic() - started_s)
        self._metrics.batch_s.observe(time.monotonic() - started_s)
        self._metrics.batch_pictures.observe(len(slots))
        self._metrics.pictures.inc(len(slots))
        self._metrics.flagged.inc(sum(picture.flagged is True for picture in pictures))
        self._metrics.unchecked.inc(sum(picture.flagged is None for picture in pictures))
        for slot, picture in zip(slots, pictures, strict=True):
            slot.ticket.deliver(slot.index, picture)
        self._deaths = 0

    def _step(self, slots: Sequence[Slot]) -> bool:
        """Record one step; return whether no client waits any more."""
        self._steps += 1
        self._last_step_s = time.monotonic()
        return not any(slot.ticket.live for slot in slots)

    def _after_failure(self, renderer: "PipelineRenderer", slots: Sequence[Slot], error: Exception) -> None:
        """Halve the batch, so that one bad picture (or too little memory) does not cost the others theirs."""
        if len(slots) > 1:
            logger.warning("a batch of %d failed and is halved: %s", len(slots), type(error).__name__)
            middle = len(slots) // 2
            for half in (slots[:middle], slots[middle:]):
                if self.state != "failed" and any(slot.ticket.live for slot in half):
                    self._draw(renderer, half)
            return
        logger.error("a picture failed", exc_info=error)
        self._metrics.failures.inc()
        slots[0].ticket.fail(error if isinstance(error, RenderError) else RenderError("the model failed"))
        try:
            renderer.self_test()
        except Exception as second:
            self.fail(f"the model fails its self-test: {type(second).__name__}: {second}")

    def _replace_thread(self, error: BaseException) -> None:
        logger.error("the model's thread died and is replaced", exc_info=error)
        self._metrics.restarts.inc()
        for slot in self._batch:
            slot.ticket.fail(RenderError("the model's thread died"))
        self._batch = ()
        self._deaths += 1
        if self._deaths < MAX_DEATHS:
            self.start()
        else:
            self.fail(f"the model's thread died {MAX_DEATHS} times in a row: {type(error).__name__}")
