"""One endpoint: its settings, its queue, its model and whether it takes requests."""

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from params.programs import ServeArguments
from steps.serving.batch_queue import BatchQueue, Ticket
from steps.serving.encoding import DrawnRequest
from steps.serving.errors import ApiError, BusyError, ClientGoneError, ClosedError, QueueFullError, invalid_field
from steps.serving.metrics import ServingMetrics
from steps.serving.moderation import Moderation
from steps.serving.notary import Notary
from steps.serving.pictures import Picture, PictureJob, Shape
from steps.serving.schema import MAX_SEED, GenerationRequest, request_type
from steps.serving.worker import ModelWorker

if TYPE_CHECKING:
    from steps.serving.renderer import PipelineRenderer


class Service:
    """The endpoint's parts, and the way of a valid request through them."""

    def __init__(self, arguments: ServeArguments, load: Callable[[], "PipelineRenderer"]) -> None:
        self.arguments = arguments
        self.request_type = request_type(arguments)
        self.metrics = ServingMetrics()
        self.notary = Notary(arguments) if arguments.provenance else None
        self.moderation = Moderation(arguments.refused_prompts)
        wait_s = arguments.batch_wait_ms / 1000
        self.queue = BatchQueue(arguments.queue_size, arguments.max_batch_size, wait_s, arguments.shed_load)
        self.worker = ModelWorker(load, self.queue, self.metrics)
        self.draining = False
        self.in_flight = 0
        self.metrics.watch("serving_queue_requests", "Requests that wait", lambda: len(self.queue))
        self.metrics.watch("serving_in_flight_requests", "Requests being answered", lambda: self.in_flight)
        self.metrics.watch("serving_ready", "1: loaded, warmed up, taking requests", lambda: float(self.ready))

    @property
    def ready(self) -> bool:
        """Whether the model is loaded and warmed up and requests are taken."""
        return self.worker.state == "ready" and self.worker.alive and not self.draining

    def require_ready(self) -> None:
        """Raise ApiError 503 while the endpoint takes no requests."""
        if self.draining:
            raise ClosedError
        if not self.ready:
            raise BusyError(503, self.worker.failure or "the model is loading")

    async def draw(self, request: GenerationRequest, arrived_s: float, gone: asyncio.Task[None]) -> DrawnRequest:
        """Draw a request's pictures.

        Raises ClientGoneError when `gone` ends first, and ApiError: 422 for an unknown adapter and for what the model
        cannot draw, 429 where the queue is full, 503 where it is closed, 504 past the time-out and 500 where the model
        fails.
        """
        if self.moderation.refuses(request.texts):
            self.metrics.refused.inc()
            finding = {"field": "prompt", "message": "this endpoint does not draw that"}
            raise ApiError(422, f"prompt: {finding['message']}", [finding])
        first_seed = request.seed if request.seed is not None else random.SystemRandom().randint(0, MAX_SEED)
        seeds = request.seeds(first_seed)
        assert self.worker.renderer is not None, "require_ready has passed"
        shape = _shape(request, self.worker.renderer.adapters)
        if refusal := self.worker.renderer.refusal(shape, (*request.texts, request.negative_prompt)):
            raise ApiError(422, refusal)
        each = zip(request.texts, seeds, strict=True)
        jobs = [PictureJob(text, request.negative_prompt, seed) for text, seed in each]
        ticket = Ticket(shape, jobs, arrived_s + self.arguments.timeout_s)
        self.queue.submit(ticket)
        pictures = await self._wait(ticket, gone)
        started_s = ticket.started_s or arrived_s
        queue_s, render_s = started_s - arrived_s, time.monotonic() - started_s
        self.metrics.queue_s.observe(queue_s)
        marks = self.notary, self.arguments.watermark
        return DrawnRequest(request, shape, seeds, tuple(pictures), self.worker.identity, queue_s, render_s, *marks)

    async def _wait(self, ticket: Ticket, gone: asyncio.Task[None]) -> list[Picture]:
        drawn = asyncio.wrap_future(ticket.future)
        try:
            remaining_s = ticket.deadline_s - time.monotonic()
            either: set[asyncio.Future[Any]] = {drawn, gone}
            await asyncio.wait(either, timeout=remaining_s, return_when=asyncio.FIRST_COMPLETED)
            if drawn.done():
                return drawn.result()
            if gone.done():
                raise ClientGoneError
            if ticket.queued and ticket.started_s is None:
                raise QueueFullError
            raise ApiError(504, f"not drawn within {self.arguments.timeout_s:g} s")
        finally:
            ticket.future.cancel()


def _shape(request: GenerationRequest, adapters: Sequence[str]) -> Shape:
    """Return what the request shares with others of its batch. Raises ApiError 422 for an unknown adapter."""
    settings = request.model_dump(include={"steps", "guidance_scale", "sampler", "adapter", "long_prompts"})
    scale = request.adapter_scale if request.adapter else 1.0
    if request.adapter and request.adapter not in adapters:
        raise invalid_field("adapter", f"unknown; this endpoint's adapters: {', '.join(adapters) or 'none'}")
    return Shape(request.width, request.height, **settings, adapter_scale=scale)
