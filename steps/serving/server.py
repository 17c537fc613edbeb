"""The server process: uvicorn around the application, a graceful end, and supervision of the model.

On SIGTERM the endpoint takes no more requests and its health check turns red; running requests are finished, then the
process ends with status 0. A second signal ends it at once. A model that fails or hangs ends it with an error.
"""

import asyncio
import socket
import time
from types import FrameType
from typing import Any, Final

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from steps.errors import StepError
from steps.serving.service import Service

# A model that makes no step for this many request time-outs hangs; a step does not take longer where requests may.
STALL_FACTOR: Final = 3
LONGEST_TIMEOUT_S: Final = 60.0
# Longer than a load balancer keeps an idle connection (60 s), so that it is never the server that closes first.
KEEP_ALIVE_S: Final = 75
# Time for a client to send a request's headers, from its first bytes.
HEADERS_TIMEOUT_S: Final = 10.0


def run(app: FastAPI, service: Service, sockets: list[socket.socket]) -> None:
    """Serve until a signal comes or the model fails; raises StepError for the latter."""
    config = uvicorn.Config(
        app,
        http=PromptHeadersProtocol,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=max(1, round(service.arguments.drain_timeout_s)),
    )
    server = DrainingServer(config, service)
    server.run(sockets)
    if service.worker.state == "failed":
        raise StepError(service.worker.failure)


def bind(host: str, port: int) -> socket.socket:
    """Return a listening socket; raises StepError when the address is taken."""
    try:
        listening = socket.create_server((host, port), backlog=2048)
    except OSError as error:
        raise StepError(f"cannot listen on {host}:{port} (SAGEMAKER_BIND_TO_PORT): {error.strerror}") from None
    # Connections inherit it; asyncio does not set it on those of a socket made elsewhere. Without it an answer's body
    # waits until the client acknowledges its head, which clients put off for 40 ms (RFC 896 meets RFC 1122, 4.2.3.2).
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


class DrainingServer(uvicorn.Server):
    """A uvicorn server that goes on answering, health checks with 503, until running requests are finished."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service
        self._drain_until_s = float("inf")

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to drain; at the second signal, end at once."""
        self.force_exit = self.should_exit = self._service.draining
        if not self._service.draining:
            self._service.draining = True
            self._drain_until_s = time.monotonic() + self._service.arguments.drain_timeout_s

    async def on_tick(self, counter: int) -> bool:
        """Look, ten times a second, whether it is time to end."""
        service = self._service
        if service.worker.state == "ready" and not service.worker.alive:
            service.worker.fail("the model's thread is gone")
        patience_s = STALL_FACTOR * min(service.arguments.timeout_s, LONGEST_TIMEOUT_S)
        if service.worker.stalled(patience_s):
            service.worker.fail(f"the model made no step for {patience_s:g} s")
        drained = service.draining and (service.in_flight == 0 or time.monotonic() > self._drain_until_s)
        if drained or service.worker.state == "failed":
            service.draining = self.should_exit = True
        return await super().on_tick(counter)


class PromptHeadersProtocol(H11Protocol):
    """HTTP/1.1 that closes connections whose request headers do not arrive in time."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._headers_timer: asyncio.TimerHandle | None = None

    def data_received(self, data: bytes) -> None:
        """Start the clock with a request's first bytes; stop it when its headers are complete."""
        super().data_received(data)
        waiting = self.cycle is None or self.cycle.response_complete
        if not waiting:
            self._stop_timer()
        elif self._headers_timer is None:
            self._headers_timer = self.loop.call_later(HEADERS_TIMEOUT_S, self.transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def _stop_timer(self) -> None:
        if self._headers_timer is not None:
            self._headers_timer.cancel()
            self._headers_timer = None
