"""The command line: `sd-pipeline COMMAND --help`.

Thin: a command parses its options, calls, and prints. Heavy imports are inside the commands, so that --help is quick.
"""

import importlib.metadata
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from pipeline_definition.commands import (
    consoles,
    cost,
    data,
    executions,
    infra,
    init,
    local,
    models,
    probe,
    programs,
    prompt,
    run_local,
)
from pipeline_definition.commands.mistakes import MISTAKES, told
from pipeline_definition.commands.options import complete, console, errors, say


class OneCommand(TyperCommand):
    """A command; an error that a person can fix ends it with one line and exit status 1 or 2."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command; with --json, what people read goes to standard error."""
        console.stderr = bool(ctx.params.get("as_json"))
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise  # the reader of a pipe has left: no mistake
        except MISTAKES as error:
            options = {max(one.opts, key=len): ctx.params.get(one.name) for one in self.params if one.name}
            line, status = told(error, options)
            errors.print("error:", style="bold red", end=" ")
            # A message may hold square brackets of its own: it is text, not markup.
            errors.print(line, markup=False, highlight=False)
            raise typer.Exit(status) from None


app = typer.Typer(no_args_is_help=True, pretty_exceptions_show_locals=False, rich_markup_mode=None)


def _print_version(asked: bool) -> None:
    if asked:
        say(f"sd-pipeline {importlib.metadata.version('sd-pipeline')}")
        raise typer.Exit


Version = Annotated[
    bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version and exit.")
]


@app.callback()
def sd_pipeline(version: Version = False) -> None:
    """Stable Diffusion pre-training as one SageMaker Pipeline."""


for command in (
    *(init.init, executions.definition, executions.parameters, run_local.run_local, executions.upsert),
    *(executions.start, executions.status, executions.stop, executions.list_executions, executions.logs),
    *(consoles.console, probe.probe, executions.report, programs.throughput, programs.export),
    *(prompt.prompt, prompt.compare, prompt.playground, prompt.prompt_study),
    *(models.production, models.promote, models.rollback, models.scale, cost.plan, cost.business_case),
):
    app.command("list" if command is executions.list_executions else None)(command)
app.add_typer(cost.app, name="cost")
app.add_typer(data.app, name="data")
app.add_typer(data.pretrained_app, name="pretrained")
app.add_typer(infra.app, name="infra")
app.add_typer(models.app, name="models")
app.add_typer(programs.picture_app, name="picture")
app.add_typer(local.app, name="local")


def _finish(group: typer.Typer) -> None:
    for command in group.registered_commands:
        command.cls = OneCommand
        command.callback = command.callback and complete(command.callback)
    for inner in group.registered_groups:
        if inner.typer_instance:
            _finish(inner.typer_instance)


_finish(app)


def main() -> None:
    """Run the command line."""
    app()
