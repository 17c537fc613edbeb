"""The console's server: console.html, its parts as they stand now, and the actions of the person who uses it.

Reads and writes what `console.board` does; serves this machine alone. The address holds a key, so that another user of
the machine cannot use the credentials behind it; a request under another name than this machine's, or an action that a
page from elsewhere sends, is refused.

    sd-pipeline local console
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from socket import socket
from typing import Annotated, Any, Final

import uvicorn
from botocore.exceptions import BotoCoreError, ClientError
from fastapi import Body, Depends, FastAPI, HTTPException, Request
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import FileResponse, HTMLResponse, JSONResponse

from params.settings import SettingsError
from pipeline_definition.artifacts.archive import redacted
from pipeline_definition.checks.findings import with_fix
from pipeline_definition.console.board import Board, Decision
from pipeline_definition.errors import OperatorError
from pipeline_definition.pages.document import Document
from pipeline_definition.pages.html import fragment, to_html

PAGE: Final = Path(__file__).with_name("console.html")
THIS_MACHINE: Final = ("127.0.0.1", "localhost")
# A page asks twice a second at most, whatever the command line does.
LEAST_POLL_S: Final = 1.0
HEADERS: Final = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
READ_ONLY: Final = "this console only reads; started with --write, it acts"

Text = Annotated[str, Body(embed=True)]


def console_app(board: Board, may_write: bool, key: str) -> FastAPI:
    """Return the server; everything lies below /<key>/."""
    outer = FastAPI(openapi_url=None)
    outer.add_middleware(TrustedHostMiddleware, allowed_hosts=list(THIS_MACHINE), www_redirect=False)
    outer.mount(f"/{key}", _app(board, may_write))
    return outer


def serve(app: FastAPI, listening: socket) -> None:
    """Serve the page until Ctrl-C."""
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=2)
    with suppress(KeyboardInterrupt):
        uvicorn.Server(config).run([listening])


def _app(board: Board, may_write: bool) -> FastAPI:
    app = FastAPI(openapi_url=None)
    for kind in (OperatorError, SettingsError, ClientError, BotoCoreError, OSError):
        app.add_exception_handler(kind, _trouble)
    _add_reading(app, board, may_write)
    _add_acting(app, board, may_write)
    return app


def _trouble(_: Request, error: Exception) -> JSONResponse:
    """Answer with what a person reads in the terminal."""
    return JSONResponse({"detail": redacted(with_fix(str(error)))}, 409, HEADERS)


def _part(name: str, **parts: Any) -> HTMLResponse:
    return HTMLResponse(fragment(PAGE.with_name(f"{name}.html"), **parts), headers=HEADERS)


def _add_reading(app: FastAPI, board: Board, may_write: bool) -> None:
    @app.get("/")
    def page(run: str = "") -> HTMLResponse:
        where = "on this machine" if board.target.is_local else board.target.region
        how = "" if may_write else "read-only"
        document = Document(tuple(filter(None, ("sd-pipeline console", where, how))), board.pipeline, "", ())
        about = {"may_write": may_write, "group": board.group, "poll_s": max(LEAST_POLL_S, board.poll_s)}
        try:
            parameters, missing, runs = board.parameters(), "", board.runs()
        except OperatorError as error:
            parameters, missing, runs = [], str(error), []
        arn = run or (runs[0]["arn"] if runs else "")
        html = to_html(document, PAGE, **about, parameters=parameters, missing=missing, arn=arn)
        return HTMLResponse(html, headers=HEADERS)

    @app.get("/console.js")
    def script() -> FileResponse:
        return FileResponse(PAGE.with_suffix(".js"), media_type="text/javascript", headers=HEADERS)

    @app.get("/part/runs")
    def runs(run: str = "") -> HTMLResponse:
        return _part("runs", runs=board.runs(), arn=run)

    @app.get("/part/run")
    def run(run: str) -> HTMLResponse:
        return _part("run", **board.run(run), may_write=may_write)

    @app.get("/part/log")
    def log(run: str, step: str = "") -> HTMLResponse:
        return _part("log", **board.log(run, step))

    @app.get("/part/models")
    def models() -> HTMLResponse:
        return _part("models", packages=board.models(), may_write=may_write)

    @app.get("/part/endpoints")
    def endpoints() -> HTMLResponse:
        return _part("endpoints", endpoints=board.endpoints(), may_write=may_write)


def _add_acting(app: FastAPI, board: Board, may_write: bool) -> None:
    def allowed(request: Request) -> None:
        """Refuse what the page itself did not send: its browser says so in Origin, and no other page can."""
        if request.headers.get("origin") != f"http://{request.headers['host']}":
            raise HTTPException(403, "not sent by the console's own page")
        if not may_write:
            raise HTTPException(403, READ_ONLY)

    guard = [Depends(allowed)]

    @app.post("/upsert", dependencies=guard)
    def upsert() -> dict[str, str]:
        return {"said": f"upserted {board.commands.upsert()}", "go": "."}

    @app.post("/start", dependencies=guard)
    def start(changes: Annotated[dict[str, str], Body(embed=True)]) -> dict[str, str]:
        return {"said": "started", "run": board.commands.start(changes)}

    @app.post("/stop", dependencies=guard)
    def stop(run: Text) -> dict[str, str]:
        board.stop(run)
        return {"said": "stopping; Train writes a checkpoint first"}

    @app.post("/retry", dependencies=guard)
    def retry(run: Text) -> dict[str, str]:
        board.retry(run)
        return {"said": "started again where it ended"}

    @app.post("/decide", dependencies=guard)
    def decide(package: Text, decision: Annotated[Decision, Body()], reason: Text = "") -> dict[str, str]:
        status = board.decide(package, decision, reason.strip() or f"{decision.lower()} in the console")
        return {"said": f"version {package.rsplit('/', 1)[-1]} is now {status}"}

    @app.post("/draw", dependencies=guard)
    def draw(endpoint: Text, prompt: Text, seed: Annotated[int | None, Body()] = None) -> dict[str, str]:
        pictures = board.draw(endpoint, prompt, seed)
        return {"said": "", "html": fragment(PAGE.with_name("pictures.html"), pictures=pictures)}
