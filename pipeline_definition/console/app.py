"""The console's server: console.html, its parts as they stand now, and what the person who uses it decides.

Reads what `console.board` reads; starts, stops, retries, approves, rejects. The address holds a key, so that another
user of this machine cannot use the credentials behind it; a request under another name than this machine's, or an
action that another page sends, is refused.

    sd-pipeline local console
"""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from botocore.exceptions import BotoCoreError, ClientError
from fastapi import APIRouter, Body, Depends, FastAPI, HTTPException, Request
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import FileResponse, HTMLResponse, JSONResponse

from params.settings import SettingsError
from pipeline_definition.artifacts.archive import redacted
from pipeline_definition.checks.findings import with_fix
from pipeline_definition.console.board import Board
from pipeline_definition.errors import OperatorError
from pipeline_definition.pages.document import Document
from pipeline_definition.pages.html import fragment, to_html
from pipeline_definition.prompting.vote_page import HEADERS

FOLDER: Final = Path(__file__).parent
READ_ONLY: Final = "this console only reads; started with --write, it acts"
NEWEST: Final = {"SortBy": "CreationTime", "SortOrder": "Descending", "MaxResults": 50}

Text = Annotated[str, Body(embed=True)]
Act = Callable[..., Any]


def console_app(board: Board, upsert: Act, start: Act, may_write: bool, key: str) -> FastAPI:
    """Return the server, all of it below /<key>/; `upsert` and `start` are the command line's."""

    def allow(request: Request) -> None:
        """Refuse an action that the page itself did not send: its browser says so in Origin, and no other page can."""
        if request.method == "POST" and request.headers.get("origin") != f"http://{request.headers['host']}":
            raise HTTPException(403, "not sent by the console's own page")
        if request.method == "POST" and not may_write:
            raise HTTPException(403, READ_ONLY)

    app = FastAPI(openapi_url=None)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"], www_redirect=False)
    for kind in (OperatorError, SettingsError, ClientError, BotoCoreError, OSError):
        app.add_exception_handler(kind, _trouble)
    router = APIRouter(prefix=f"/{key}", dependencies=[Depends(allow)])
    _add_reading(router, board, may_write)
    _add_acting(router, board, upsert, start)
    app.include_router(router)
    return app


def _trouble(_: Request, error: Exception) -> JSONResponse:
    """Answer with what a person reads in the terminal."""
    return JSONResponse({"detail": redacted(with_fix(str(error)))}, 409, HEADERS)


def _add_reading(router: APIRouter, board: Board, may_write: bool) -> None:
    @router.get("/")
    def page(run: str = "") -> HTMLResponse:
        where = "on this machine" if board.target.is_local else board.target.region
        eyebrow = ("sd-pipeline console", where, *([] if may_write else ["read-only"]))
        try:
            parameters, missing, runs = board.parameters(), "", board.executions.list(board.pipeline)
        except OperatorError as error:
            parameters, missing, runs = [], str(error), []
        about = {"board": board, "may_write": may_write, "parameters": parameters, "missing": missing}
        about["arn"] = run or (runs[0]["PipelineExecutionArn"] if runs else "")
        html = to_html(Document(eyebrow, board.pipeline, "", ()), FOLDER / "console.html", **about)
        return HTMLResponse(html, headers=HEADERS)

    @router.get("/console.js")
    def script() -> FileResponse:
        return FileResponse(FOLDER / "console.js", media_type="text/javascript", headers=HEADERS)

    @router.get("/part/{name}")
    def part(name: Literal["run", "runs", "log", "models", "endpoints"], run: str = "", step: str = "") -> HTMLResponse:
        readers: dict[str, Callable[[], dict[str, Any]]] = {
            "run": lambda: board.run(run),
            "runs": lambda: {"runs": board.executions.list(board.pipeline), "arn": run},
            "log": lambda: board.log(run, step),
            "models": lambda: {"packages": [redacted(asdict(package)) for package in board.packages.list()]},
            "endpoints": lambda: {"endpoints": board.sagemaker.list_endpoints(**NEWEST)["Endpoints"]},
        }
        html = fragment(FOLDER / f"{name}.html", **readers[name](), may_write=may_write)
        return HTMLResponse(html, headers=HEADERS)


def _add_acting(router: APIRouter, board: Board, upsert: Act, start: Act) -> None:
    @router.post("/upsert")
    def upserted() -> dict[str, str]:
        return {"said": f"upserted {upsert().value['pipeline_arn']}", "go": "."}

    @router.post("/start")
    def started(changes: Annotated[dict[str, str], Body(embed=True)]) -> dict[str, str]:
        reply = start([f"{name}={value}" for name, value in changes.items()])
        return {"said": "started", "run": reply.value["execution_arn"]}

    @router.post("/decide")
    def decide(package: Text, decision: Literal["Approved", "Rejected"] = Body(), reason: Text = "") -> dict[str, str]:
        decided = board.packages.decide(package, decision, reason.strip() or f"{decision.lower()} in the console")
        return {"said": f"version {decided.version} is now {decided.status}"}

    @router.post("/draw")
    def draw(endpoint: Text, prompt: Text, seed: int | None = Body(None)) -> dict[str, str]:
        pictures = board.draw(endpoint, {"prompt": prompt, "seed": seed, "format": "png"})
        return {"said": "", "html": fragment(FOLDER / "pictures.html", pictures=pictures)}

    @router.post("/{action}")
    def act(action: Literal["stop", "retry"], run: Text) -> dict[str, str]:
        getattr(board.executions, action)(run)
        return {
            "said": "it stops; Train writes a checkpoint first" if action == "stop" else "it goes on where it ended"
        }
