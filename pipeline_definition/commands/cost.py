"""`sd-pipeline cost forecast | training | prices refresh`, `plan` and `business-case`: what it costs, what it earns."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import typer

from pipeline_definition.commands.options import AsJson, console, reported_errors

app = typer.Typer(help="What a run costs: forecast, arithmetic by hand, prices.", no_args_is_help=True)


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


def _print_json(value: Any) -> None:
    sys.stdout.write(json.dumps(value, indent=2) + "\n")
