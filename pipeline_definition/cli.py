"""The command line: `sd-pipeline COMMAND --help`.

Thin: a command parses its options, calls, and prints. Heavy imports are inside the commands, so that --help is quick.
"""

from __future__ import annotations

import typer

from pipeline_definition.commands import (
    compare,
    cost,
    data,
    definition,
    executions,
    infra,
    local,
    models,
    playground,
    production,
    prompt,
    prompt_study,
    report,
    run_local,
    scale,
    throughput,
)

app = typer.Typer(
    help="Stable Diffusion pre-training as one SageMaker Pipeline.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
    rich_markup_mode=None,
)
app.command()(definition.definition)
app.command()(definition.parameters)
app.command("run-local")(run_local.run_local)
app.command()(executions.upsert)
app.command()(executions.start)
app.command()(executions.status)
app.command()(executions.stop)
app.command("list")(executions.list_executions)
app.command()(executions.logs)
app.command()(report.report)
app.command()(throughput.throughput)
app.command()(prompt.prompt)
app.command()(compare.compare)
app.command()(playground.playground)
app.command("prompt-study")(prompt_study.prompt_study)
app.command()(production.production)
app.command()(production.promote)
app.command()(production.rollback)
app.command()(scale.scale)
app.command()(cost.plan)
app.command("business-case")(cost.business_case)
app.add_typer(cost.app, name="cost")
app.add_typer(data.app, name="data")
app.add_typer(infra.app, name="infra")
app.add_typer(models.app, name="models")
app.add_typer(local.app, name="local")


def main() -> None:
    """Run the command line."""
    app()
