"""`sd-pipeline cost forecast | training | prices refresh`, `plan` and `business-case`: what it costs, what it earns."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline_definition.commands.options import (
    AsJson,
    Changes,
    Params,
    console,
    parse_changes,
    read_settings,
    reported_errors,
)

app = typer.Typer(help="What a run costs: forecast, arithmetic by hand, prices.", no_args_is_help=True)
prices_app = typer.Typer(help="The dated price file behind the forecasts.", no_args_is_help=True)
app.add_typer(prices_app, name="prices")

DEFAULT_PARAMS = Path("params/octank_100gb.yaml")
Rows = Annotated[
    int | None, typer.Option("--rows", help="Length of the url table.", show_default="data.rows of the parameter set")
]


@app.command("forecast")
def forecast_command(
    params: Params = DEFAULT_PARAMS,
    changes: Changes = None,
    rows: Rows = None,
    fsx_gib: Annotated[
        int | None, typer.Option("--fsx-gib", min=1200, help="FSx for Lustre storage.", show_default="holds the latents")
    ] = None,
    fsx_throughput: Annotated[int, typer.Option("--fsx-throughput", help="MB/s for each TiB of it.")] = 125,
    storage_months: Annotated[float, typer.Option("--storage-months", min=0, help="How long S3 keeps the data.")] = 1.0,
    as_json: AsJson = False,
) -> None:
    """Forecast GPU-hours, days and dollars of every step, and say where each figure comes from.

    Example: sd-pipeline cost forecast --params params/sd2_base.yaml --set TrainingInstanceCount=16
    """
    from pipeline_definition.cost.forecast import forecast
    from pipeline_definition.cost.storage import Surroundings
    from pipeline_definition.cost.tables import forecast_json, forecast_notes, forecast_table

    with reported_errors():
        settings, definition = _definition(params)
        around = Surroundings(fsx_gib, fsx_throughput, storage_months)
        bill = forecast(settings, definition, parse_changes(changes), around, rows)
        if as_json:
            _print_json(forecast_json(bill))
            return
        console.print(forecast_table(bill))
        for note in forecast_notes(bill):
            console.print(note, style="dim", highlight=False, markup=False, soft_wrap=True)


@app.command()
def training(
    gpu_hours: Annotated[float, typer.Option("--gpu-hours", help="GPU-hours of the training.")],
    gpus_per_instance: Annotated[int, typer.Option("--gpus-per-instance", help="GPUs of one instance.")],
    price: Annotated[float, typer.Option("--price-per-instance-hour", help="Dollars for one instance-hour.")],
    as_json: AsJson = False,
) -> None:
    """Say what so many GPU-hours cost: the forecast's arithmetic by hand.

    Example: sd-pipeline cost training --gpu-hours 13165 --gpus-per-instance 8 --price-per-instance-hour 40.96
    """
    from pipeline_definition.cost.training import training_cost

    with reported_errors():
        cost = training_cost(gpu_hours, gpus_per_instance, price)
        if as_json:
            _print_json(
                {
                    "gpu_hours": cost.gpu_hours,
                    "instance_hours": cost.instance_hours,
                    "usd": round(cost.usd, 2),
                    "inputs": {"gpus_per_instance": gpus_per_instance, "usd_per_instance_hour": price},
                }
            )
            return
        console.print(
            f"{gpu_hours:,.0f} GPU-hours / {gpus_per_instance} GPUs = {cost.instance_hours:,.1f} instance-hours"
            f" x ${price:,.2f} = ${cost.usd:,.0f}",
            highlight=False,
            soft_wrap=True,
        )


@prices_app.command("refresh")
def refresh_prices(
    region: Annotated[str, typer.Option("--region", help="Region of the prices.")] = "us-east-1",
    add: Annotated[list[str] | None, typer.Option("--add", help="A further instance type; can be repeated.")] = None,
    path: Annotated[Path | None, typer.Option("--file", help="Price file.", show_default="the package's own")] = None,
) -> None:
    """Ask the AWS price list API for every price and write the price file again.

    Example: sd-pipeline cost prices refresh --add ml.p5e.48xlarge
    """
    from datetime import UTC, datetime

    from pipeline_definition.cost.price_list import API_REGION, refresh, write_prices
    from pipeline_definition.cost.prices import PRICES_FILE, load_prices
    from pipeline_definition.session import Target

    with reported_errors():
        file = path or PRICES_FILE
        today = datetime.now(UTC).date()
        found = refresh(load_prices(file), Target(API_REGION).client("pricing"), region, today, add or ())
        write_prices(found, file)
        for line in (*found.changed, *found.kept):
            console.print(line, highlight=False, markup=False, soft_wrap=True)
        console.print(f"{len(found.changed)} changed, {len(found.kept)} kept: {file}", highlight=False, soft_wrap=True)


def _definition(params: Path) -> tuple[Any, dict[str, Any]]:
    from pipeline_definition.pipeline import build_definition

    settings = read_settings(params)
    return settings, json.loads(build_definition(settings))


def _print_json(value: Any) -> None:
    sys.stdout.write(json.dumps(value, indent=2) + "\n")
