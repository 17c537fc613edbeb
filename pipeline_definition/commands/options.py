"""The options that several commands share, and how commands print."""

import functools
import inspect
import json
import os
import sys
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import typer
from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderResult
from rich.table import Column, Table
from rich.text import Text

from params.settings import Settings, load_settings
from pipeline_definition.errors import UsageError
from pipeline_definition.pages import document
from pipeline_definition.prompting.endpoint import Endpoint, connect
from pipeline_definition.session import Target

ROOT = Path(__file__).resolve().parents[2]
DEFAULT_PARAMS = Path("octank_100gb")
LOCAL_PARAMS = Path("local")
DEFAULT_STATE = Path(".sd-pipeline")
DEFAULT_RUNS = Path("runs")


def _params_of(context: typer.Context, params: Path) -> Path:
    """Return the laptop's set for a command with --local and without --params."""
    source = context.get_parameter_source("params")
    return LOCAL_PARAMS if context.params.get("local") and source and source.name == "DEFAULT" else params


PARAMS_HELP: Final = "Parameter set: a file, or the name of one that ships with sd-pipeline; with --local, local."
Params = Annotated[Path, typer.Option(help=PARAMS_HELP, callback=_params_of, show_default=True)]
Changes = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="Change a pipeline parameter for this run; can be repeated."),
]
# Read before --params, whose default depends on it.
Local = Annotated[
    bool, typer.Option("--local", is_eager=True, help="Use the local control plane (`sd-pipeline local up`), not AWS.")
]
State = Annotated[Path, typer.Option(help="Folder of the local control plane; delete it to start afresh.")]
Runs = Annotated[Path, typer.Option(help="Folder of the runs' logs, summaries and reports.")]
RunId = Annotated[str, typer.Argument(help="Execution: its ARN, its id, or `latest`.")]
Backend = Annotated[
    Literal["process", "docker", "podman"],
    typer.Option(help="What runs jobs and endpoints: processes, or containers of their images."),
]
EndpointName = Annotated[
    str | None,
    typer.Option(
        "--endpoint",
        help="Its name, or a server's address such as http://127.0.0.1:8080. Default: the parameter set's.",
    ),
]
EvaluatorDir = Annotated[Path | None, typer.Option("--evaluator", help="Folder with clip/; default: the set's own.")]
Host = Annotated[str, typer.Option(help="Address to listen on.")]
OpenBrowser = Annotated[bool, typer.Option("--open", help="Open it in the browser.")]
Replace = Annotated[bool, typer.Option("--replace", help="Overwrite objects that differ.")]
Variant = Annotated[str | None, typer.Option(help="One of the endpoint's variants; default: by weight.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]

# A file or a pipe has no width to fold a table to; rich would take 80 columns and cut words.
PIPED_COLUMNS: Final = 200
console = Console(soft_wrap=False, width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else PIPED_COLUMNS)
errors = Console(stderr=True, soft_wrap=True)


def parse_changes(changes: list[str] | None, option: str = "--set", form: str = "NAME=VALUE") -> dict[str, str]:
    """Return an option that can be repeated, such as `--set NAME=VALUE`, as a mapping."""
    values: dict[str, str] = {}
    for change in changes or []:
        name, equals, value = change.partition("=")
        if not equals or not name.strip():
            raise UsageError(f"{option} {change}: write it as {form}")
        values[name.strip()] = value.strip()
    return values


class CommandContext:
    """What --params, --local and --state stand for: a parameter set, and where its command goes."""

    def __init__(self, params: Params = DEFAULT_PARAMS, local: Local = False, state: State = DEFAULT_STATE) -> None:
        self.params, self.local, self.state = params, local, state

    @functools.cached_property
    def settings(self) -> Settings:
        return load_settings(self.params)

    @functools.cached_property
    def target(self) -> Target:
        """AWS, or the control plane that is up on this machine."""
        if not self.local:
            return Target(self.settings.account.region)
        from pipeline_definition.local.client import is_up

        plane = is_up(self.state)
        if plane is None:
            raise UsageError(f"no local control plane is up on {self.state}; `sd-pipeline local up` starts it")
        return Target(self.settings.account.region, plane.url)

    @property
    def poll_s(self) -> float:
        return 0.5 if self.local else 10.0


class Reply:
    """What a command made or did: a value for programs, tables and lines for people, and the exit status."""

    def __init__(self, value: Any, *shown: object, status: int = 0) -> None:
        self.value, self.shown, self.status = value, shown, status

    def tell(self, as_json: bool) -> None:
        """Print it, and end the command where it did not go well."""
        if as_json:
            print_json(self.value)
        for shown in () if as_json else self.shown:
            if isinstance(shown, ConsoleRenderable):
                console.print(shown, soft_wrap=isinstance(shown, Text))
            else:
                say(shown)
        if self.status:
            raise typer.Exit(self.status)


def complete(command: Callable[..., Any]) -> Callable[..., None]:
    """Give a command the options that its signature implies.

    These are --params, --local and --state where its first argument is a CommandContext, and --json where it returns
    a Reply.
    """
    own = inspect.signature(command, eval_str=True)
    shared = inspect.signature(CommandContext, eval_str=True).parameters
    options = {name: option for name, option in own.parameters.items() if option.annotation is not CommandContext}
    has_context, tells = len(options) < len(own.parameters), own.return_annotation is Reply
    as_json = inspect.Parameter("as_json", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=AsJson)
    options |= {**(shared if has_context else {}), **({as_json.name: as_json} if tells else {})}

    @functools.wraps(command)
    def run(**values: Any) -> None:
        context = [CommandContext(**{name: values.pop(name) for name in shared})] if has_context else []
        result = command(*context, **{name: value for name, value in values.items() if name in own.parameters})
        if isinstance(result, Reply):
            result.tell(values[as_json.name])

    keywords = [option.replace(kind=option.KEYWORD_ONLY) for option in options.values()]
    run.__signature__ = inspect.Signature(keywords)  # type: ignore[attr-defined]
    run.__annotations__ = {option.name: option.annotation for option in keywords}
    return run


def endpoint_of(context: CommandContext, name: str | None, variant: str | None) -> Endpoint:
    """Return the endpoint that `--endpoint`, `--variant` and `--local` mean."""

    def target() -> Target:
        from pipeline_definition.local.client import ensure_up, is_up

        if context.local and is_up(context.state) is None:
            # The endpoint of an earlier run comes back with its control plane.
            ensure_up(context.state, DEFAULT_RUNS, leash=False)
        return context.target

    return connect(target, name or context.settings.endpoint.name, variant)


def say(line: object, style: str | None = None) -> None:
    """Print a line as it is: unfolded, and without reading markup in it."""
    console.print(str(line), style=style, soft_wrap=True, highlight=False, markup=False)


def print_json(value: Any) -> None:
    sys.stdout.write(json.dumps(value, indent=2, default=str) + "\n")


def dim(line: str) -> Text:
    return Text(line, "dim")


class FittedTable:
    """Rows of text under headers, as wide as the terminal: where figures or words would be cut, a paragraph a row."""

    def __init__(self, headers: Sequence[str], rows: Iterable[Sequence[str]], numeric: Collection[int] = ()) -> None:
        self._headers, self._rows, self._numeric = headers, [tuple(row) for row in rows], numeric

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        columns = list(zip(self._headers, *self._rows, strict=True))
        needed = [max(self._narrowest(cell, at) for cell in column) for at, column in enumerate(columns)]
        wanted = [max(map(len, column)) - least for column, least in zip(columns, needed, strict=True)]
        spare = options.max_width - len(columns) - sum(needed)
        if spare >= 0:
            part = min(1.0, spare / max(sum(wanted), 1))
            yield self._table([least + int(more * part) for least, more in zip(needed, wanted, strict=True)])
            return
        for row in self._rows:
            yield Text(row[0], "bold", overflow="fold")
            named = zip(self._headers[1:], row[1:], strict=True)
            yield from (Text(f"  {header}: {cell}", overflow="fold") for header, cell in named if cell)

    def _narrowest(self, cell: str, column: int) -> int:
        """Return how few characters hold a cell: figures stay whole, texts may be folded between words."""
        return max(map(len, [cell] if column in self._numeric else cell.split()), default=0)

    def _table(self, widths: Sequence[int]) -> Table:
        columns = (
            Column(header, overflow="fold", justify="right" if at in self._numeric else "left", width=widths[at])
            for at, header in enumerate(self._headers)
        )
        made = Table(*columns, box=None, pad_edge=False, padding=(0, 1, 0, 0))
        for row in self._rows:
            made.add_row(*map(Text, row))
        return made


def shown(made: document.Table) -> FittedTable:
    return FittedTable(made.headers, made.rows, made.numeric)
