"""The HTTP side of the endpoint: GET /ping, GET /metrics, POST /invocations and, for others' clients, to their paths.

Whatever a client sends, it gets pictures or an error as JSON (see `steps.serving.errors`). SageMaker forwards the body
and X-Amzn-SageMaker-Custom-Attributes alone, so what the headers say is there, too.
"""

import asyncio
import json
import logging
import re
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from steps.serving import forms, media
from steps.serving.encoding import DrawnRequest
from steps.serving.errors import ApiError, ClientGoneError
from steps.serving.forms import FORMS
from steps.serving.openapi import DocumentedApp
from steps.serving.schema import GenerationRequest
from steps.serving.service import Service

logger = logging.getLogger(__name__)

# What nginx logs for a client that closed its connection before the answer.
CLIENT_CLOSED_REQUEST = 499
MAX_LOGGED_CHARACTERS = 500
# SageMaker passes on at most 25 MB: so much of a refused body is read and thrown away, since a client that is still
# sending when the connection closes never sees the answer.
MAX_DISCARDED_BYTES: Final = 26_214_400


def create_app(service: Service) -> FastAPI:
    """Return the ASGI application; its lifespan starts and stops the model's thread."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service.worker.start()
        yield
        # A model that hangs is not waited for.
        patience_s = 0.0 if service.worker.state == "failed" else service.arguments.drain_timeout_s
        await asyncio.to_thread(service.worker.stop, patience_s)

    app = DocumentedApp(title="Stable Diffusion endpoint", lifespan=lifespan, docs_url=None, redoc_url=None)
    app.service = service
    app.add_exception_handler(HTTPException, _http_error)

    @app.get("/ping")
    async def ping() -> Response:
        try:
            service.require_ready()
        except ApiError as error:
            return _error(error, uuid.uuid4().hex)
        return _json(200, {"status": "ready", "model": service.worker.identity})

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4")

    @app.post("/invocations")
    async def invocations(request: Request) -> Response:
        return await _Exchange(service, request).answer()

    for path in filter(None, (form.get("path") for form in FORMS.values())):
        app.post(path, include_in_schema=False)(invocations)
    return app


class _Exchange:
    def __init__(self, service: Service, request: Request) -> None:
        self._service, self._request = service, request
        self._arrived_s = time.monotonic()
        self._id = uuid.uuid4().hex
        self._log: dict[str, Any] = {}

    async def answer(self) -> Response:
        self._service.in_flight += 1
        try:
            response = await self._respond()
        except ApiError as error:
            self._log["error"] = error.message[:MAX_LOGGED_CHARACTERS]
            response = _error(error, self._id)
        except ClientGoneError:
            response = Response(status_code=CLIENT_CLOSED_REQUEST)
        except Exception:
            logger.exception("request %s failed", self._id)
            response = _error(ApiError(500, "the server failed"), self._id)
        finally:
            self._service.in_flight -= 1
        response.headers["X-Request-Id"] = self._id
        self._record(response.status_code)
        return response

    async def _respond(self) -> Response:
        self._service.require_ready()
        headers, arguments = self._request.headers, self._service.arguments
        media.check_content_type(headers.get("content-type"), headers.get("content-encoding"))
        body = await read_body(self._request, arguments.max_body_bytes, arguments.body_timeout_s)
        accept = headers.get("accept") or "*/*"
        generation, form = forms.read(body, self._request.url.path, accept, self._service.request_type)
        in_json = accept == "*/*" and form and FORMS[form].get("json")
        media_type = media.choose(media.JSON if in_json else accept, generation)
        self._describe(generation)
        watch = asyncio.create_task(gone(self._request))
        try:
            drawing = await self._service.draw(generation, self._arrived_s, watch)
        finally:
            watch.cancel()
        self._log |= {"seed": drawing.seeds[0], "queue_s": drawing.queue_s, "render_s": drawing.render_s}
        # Compressing a picture takes milliseconds: not on the event loop.
        return await asyncio.to_thread(_picture_response, drawing, media_type, form, self._id)

    def _describe(self, generation: GenerationRequest) -> None:
        names = {"width", "height", "steps", "guidance_scale", "sampler", "adapter", "long_prompts"}
        self._log |= {**generation.model_dump(include=names), "pictures": len(generation.texts)}
        if self._service.arguments.log_prompts:
            self._log |= {"prompts": generation.texts, "negative_prompt": generation.negative_prompt}

    def _record(self, status: int) -> None:
        seconds = time.monotonic() - self._arrived_s
        self._service.metrics.requests.labels(str(status)).inc()
        if status == HTTPStatus.OK:
            self._service.metrics.request_s.observe(seconds)
        fields = {"request_id": self._id, "status": status, "seconds": round(seconds, 4), **self._log}
        logger.info("invocation", extra={"fields": fields})


async def read_body(request: Request, max_bytes: int, timeout_s: float) -> bytes:
    """Return the body. Raises ApiError 413 above `max_bytes`, 408 after `timeout_s`, ClientGoneError without client."""
    try:
        async with asyncio.timeout(timeout_s):
            return await _read(request, max_bytes)
    except TimeoutError:
        message = f"the body did not arrive within {timeout_s:g} s"
        raise ApiError(408, message, headers={"Connection": "close"}) from None
    except ClientDisconnect:
        raise ClientGoneError from None


async def gone(request: Request) -> None:
    """Return when the client has closed its connection; the body must have been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _read(request: Request, max_bytes: int) -> bytes:
    body, size = bytearray(), 0
    async for part in request.stream():
        size += len(part)
        if size <= max_bytes:
            body += part
        elif size > MAX_DISCARDED_BYTES:
            break
    if size > max_bytes:
        headers = {"Connection": "close"} if size > MAX_DISCARDED_BYTES else {}
        raise ApiError(413, f"the body is larger than {max_bytes} bytes", headers=headers)
    return bytes(body)


def _picture_response(drawing: DrawnRequest, media_type: str, form: str | None, request_id: str) -> Response:
    kind, in_json = media.picture_format(media_type, drawing.request), media_type == media.JSON
    content = forms.answer(form, drawing, kind, request_id) if in_json else drawing.file(0, kind)
    seeds, model = ",".join(map(str, drawing.seeds)), re.sub("[^ -~]", "?", drawing.model)
    # SageMaker's limit: 1024 visible ASCII characters.
    attributes = f"seed={seeds};model={model};{drawing.told}"[:1024]
    headers = {"X-Seed": seeds, "X-Model": model, "X-Amzn-SageMaker-Custom-Attributes": attributes}
    return Response(content, media_type=media_type, headers=headers)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException), "it is registered for these alone"
    message = f"{request.method} {request.url.path}: {HTTPStatus(error.status_code).phrase.lower()}"
    return _error(ApiError(error.status_code, message, headers=error.headers), uuid.uuid4().hex)


def _error(error: ApiError, request_id: str) -> Response:
    return _json(error.status, error.body(request_id), {"X-Request-Id": request_id, **error.headers})


def _json(status: int, body: dict[str, Any], headers: dict[str, str] | None = None) -> Response:
    return Response(json.dumps(body), status, headers, media.JSON)
