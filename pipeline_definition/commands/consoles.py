"""`sd-pipeline console` and `sd-pipeline local console`: the pipeline's page, on AWS or on the local control plane."""

from __future__ import annotations

import secrets
import socket
from typing import Annotated

import typer

from pipeline_definition.commands import options
from pipeline_definition.commands.checks import Stack, cloud_of
from pipeline_definition.commands.executions import started, upserted
from pipeline_definition.commands.options import CommandContext, say
from pipeline_definition.errors import UsageError

KEY_BYTES = 16

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
    open_page(context, write, port, open_browser, stack)


def local_console(
    params: options.Params = options.LOCAL_PARAMS,
    state: options.State = options.DEFAULT_STATE,
    runs: options.Runs = options.DEFAULT_RUNS,
    port: Port = 0,
    open_browser: options.OpenBrowser = False,
) -> None:
    """Open the console's page on the local control plane, which is started where it is not up; Ctrl-C ends the page.

    Example: sd-pipeline local console --open
    """
    from pipeline_definition.local.client import ensure_up, is_up

    context = CommandContext(params, True, state)
    if is_up(state) is None:
        ensure_up(state, runs, cloud=cloud_of(context.settings))
    open_page(context, True, port, open_browser, None)


def open_page(context: CommandContext, write: bool, port: int, open_browser: bool, stack: str | None) -> None:
    """Serve the console until Ctrl-C; print its address, which holds the key to it."""
    from pipeline_definition.console.app import console_app, serve
    from pipeline_definition.console.board import Board, Commands

    try:
        listening = socket.create_server(("127.0.0.1", port))
    except OSError as error:
        raise UsageError(f"--port {port}: {error.strerror}; --port 0 takes a free one") from None
    settings, key = context.settings, secrets.token_urlsafe(KEY_BYTES)
    commands = Commands(
        upsert=lambda: upserted(context, stack),
        start=lambda changes: str(started(context, stack, changes)[0]),
    )
    board = Board(context.target, settings.pipeline_name, settings.registry.group, context.poll_s, commands)
    address = f"http://127.0.0.1:{listening.getsockname()[1]}/{key}/"
    say(f"{address}  Ctrl-C ends it")
    if open_browser:
        typer.launch(address)
    serve(console_app(board, write or context.local, key), listening)
