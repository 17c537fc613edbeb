"""`sd-pipeline console` and `sd-pipeline local console`: the pipeline's page, on AWS or on the local control plane."""

import functools
import secrets
from typing import Annotated

import typer

from pipeline_definition.commands import options
from pipeline_definition.commands.checks import Stack, cloud_of
from pipeline_definition.commands.executions import start, upsert
from pipeline_definition.commands.options import CommandContext, say
from pipeline_definition.commands.prompt import listen

Port = Annotated[int, typer.Option(help="Port of the page on 127.0.0.1; 0: any free one.")]


def console(
    context: CommandContext,
    write: Annotated[bool, typer.Option("--write", help="Also act: upsert, start, stop, approve, prompt.")] = False,
    port: Port = 0,
    open_browser: options.OpenBrowser = False,
    stack: Stack = None,
) -> None:
    """Open the pipeline's page: its graph live, parameters, logs, metrics, models and endpoints; Ctrl-C ends it.

    It reads with your own AWS credentials, and acts with --write alone. It serves this machine; from another one, open
    it through `ssh -L`.

    Example: sd-pipeline console --params params/octank_100gb.yaml --stack sd-pipeline --write --open
    """
    from pipeline_definition.console.app import console_app
    from pipeline_definition.console.board import Board
    from pipeline_definition.prompting.vote_page import serve

    listening, key = listen("127.0.0.1", port), secrets.token_urlsafe(16)
    board = Board(context.target, context.settings.pipeline_name, context.settings.registry.group, context.poll_s)
    acts = functools.partial(upsert, context, stack), functools.partial(start, context, stack=stack)
    address = f"http://127.0.0.1:{listening.getsockname()[1]}/{key}/"
    say(f"{address}  Ctrl-C ends it")
    if open_browser:
        typer.launch(address)
    serve(console_app(board, *acts, write, key), listening)


def local_console(
    params: options.Params = options.LOCAL_PARAMS,
    state: options.State = options.DEFAULT_STATE,
    port: Port = 0,
    open_browser: options.OpenBrowser = False,
) -> None:
    """Open the console's page on the local control plane, which is started where it is not up; Ctrl-C ends the page.

    Example: sd-pipeline local console --open
    """
    from pipeline_definition.local.client import ensure_up, is_up

    context = CommandContext(params, True, state)
    if is_up(state) is None:
        ensure_up(state, options.DEFAULT_RUNS, cloud=cloud_of(context.settings))
    console(context, True, port, open_browser)
