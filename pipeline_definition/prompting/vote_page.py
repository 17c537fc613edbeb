"""The page on which people choose between two pictures without knowing who drew which.

Serves vote.html and vote.js, the pairs and their pictures from this machine, and takes the votes. Nothing that the
browser gets names a model.

    sd-pipeline compare --vote --prompts prompts.txt --endpoint sd-production
"""

from contextlib import suppress
from pathlib import Path
from socket import socket
from typing import Annotated, Any, Final, Literal

import uvicorn
from fastapi import FastAPI, Response
from pydantic import BaseModel, StringConstraints
from starlette.responses import FileResponse, HTMLResponse

from pipeline_definition.pages.document import Document
from pipeline_definition.pages.html import to_html
from pipeline_definition.prompting.votes import Ballot, Shown

PAGE: Final = Path(__file__).with_name("vote.html")
HEADERS: Final = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY"}

Voter = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=60)]


class CastVote(BaseModel):
    voter: Voter
    pair: str
    chosen: Shown


def vote_app(ballot: Ballot) -> FastAPI:
    app = FastAPI(openapi_url=None)

    @app.exception_handler(KeyError)
    def unknown(*_: object) -> Response:
        return Response("no such pair", 404)

    @app.get("/")
    def page() -> HTMLResponse:
        document = Document(("blind vote",), "Which shows the prompt better?", "", ())
        return HTMLResponse(to_html(document, PAGE), headers=HEADERS)

    @app.get("/vote.js")
    def script() -> FileResponse:
        return FileResponse(PAGE.with_suffix(".js"), media_type="text/javascript", headers=HEADERS)

    @app.get("/pair")
    def pair(voter: Voter, name: str = "") -> dict[str, Any]:
        """Return a pair that the voter goes back to, or the next one; without a name where all are done."""
        waiting = ballot.waiting(voter)
        chosen = name or next(iter(waiting), "")
        about = {"pair": chosen, "done": len(ballot.pairs) - len(waiting), "all": len(ballot.pairs)}
        return {**about, "prompt": ballot.pairs[chosen].prompt} if chosen else about

    @app.get("/picture")
    def picture(voter: Voter, name: str, side: Literal["left", "right"]) -> Response:
        return Response(ballot.picture(voter, name, side), media_type="image/png", headers=HEADERS)

    @app.post("/vote", status_code=204)
    def vote(sent: CastVote) -> None:
        ballot.vote(sent.voter, sent.pair, sent.chosen)

    return app


def serve(app: FastAPI, listening: socket) -> None:
    """Serve a page until Ctrl-C."""
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=5)
    with suppress(KeyboardInterrupt):
        uvicorn.Server(config).run([listening])
