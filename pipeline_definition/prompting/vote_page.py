"""The page on which people choose between two pictures without knowing who drew which.

Serves vote.html and vote.js, the pairs and their pictures from this machine, and takes the votes. Nothing that the
browser gets names a model.

    sd-pipeline compare --vote --prompts prompts.txt --endpoint sd-production
"""

from __future__ import annotations

import webbrowser
from pathlib import Path
from socket import socket
from typing import Annotated, Any, Final

import uvicorn
from fastapi import FastAPI, HTTPException, Response
from pydantic import BaseModel, StringConstraints
from starlette.responses import FileResponse, HTMLResponse

from pipeline_definition.pages.document import Document
from pipeline_definition.pages.html import to_html
from pipeline_definition.prompting.ballot import Ballot, Shown, Side
from pipeline_definition.prompting.votes import Pair

PAGE: Final = Path(__file__).with_name("vote.html")
SCRIPT: Final = Path(__file__).with_name("vote.js")

HEADERS: Final = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY"}

Voter = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=60)]


class CastVote(BaseModel):
    """What the page sends."""

    voter: Voter
    pair: str
    chosen: Shown


def vote_app(ballot: Ballot) -> FastAPI:
    """Return the page's server."""
    app = FastAPI(openapi_url=None)

    @app.get("/")
    def page() -> HTMLResponse:
        document = Document(("blind vote",), "Which shows the prompt better?", "", ())
        return HTMLResponse(to_html(document, PAGE), headers=HEADERS)

    @app.get("/vote.js")
    def script() -> FileResponse:
        return FileResponse(SCRIPT, media_type="text/javascript", headers=HEADERS)

    @app.get("/pair")
    def pair(voter: Voter, name: str = "") -> dict[str, Any]:
        """Return a pair that the voter goes back to, or the next one; without a name where all are done."""
        waiting = ballot.waiting(voter)
        chosen = name or next(iter(waiting), "")
        about = {"pair": chosen, "done": len(ballot.pairs) - len(waiting), "all": len(ballot.pairs)}
        return {**about, "prompt": _known(chosen).prompt} if chosen else about

    @app.get("/picture")
    def picture(voter: Voter, name: str, side: Side) -> Response:
        _known(name)
        return Response(ballot.picture(voter, name, side), media_type="image/png", headers=HEADERS)

    @app.post("/vote", status_code=204)
    def vote(sent: CastVote) -> None:
        _known(sent.pair)
        ballot.vote(sent.voter, sent.pair, sent.chosen)

    def _known(name: str) -> Pair:
        if name not in ballot.pairs:
            raise HTTPException(404, "no such pair")
        return ballot.pairs[name]

    return app


def serve(ballot: Ballot, listening: socket, open_browser: bool) -> None:
    """Serve the page until Ctrl-C."""
    if open_browser:
        webbrowser.open(address_of(listening))
    config = uvicorn.Config(vote_app(ballot), log_level="warning", access_log=False, timeout_graceful_shutdown=5)
    try:
        uvicorn.Server(config).run([listening])
    except KeyboardInterrupt:
        return


def address_of(listening: socket) -> str:
    """Return the page's address."""
    host, port = listening.getsockname()[:2]
    return f"http://{'127.0.0.1' if host == '0.0.0.0' else host}:{port}/"
