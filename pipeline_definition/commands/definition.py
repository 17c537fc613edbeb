"""`sd-pipeline definition` and `parameters`: what SageMaker gets, without a connection."""

from __future__ import annotations

import json
import sys

from rich.table import Table

from pipeline_definition.commands.checks import definition_text
from pipeline_definition.commands.options import LOCAL_PARAMS, AsJson, Params, console, read_settings, reported_errors


def definition(params: Params = LOCAL_PARAMS) -> None:
    """Print the pipeline definition JSON: offline, without credentials, the same bytes every time.

    Example: sd-pipeline definition --params params/sd2_base.yaml > definition.json
    """
    with reported_errors():
        sys.stdout.write(definition_text(read_settings(params)) + "\n")


def parameters(params: Params = LOCAL_PARAMS, as_json: AsJson = False) -> None:
    """Print the pipeline parameters with their defaults: what `--set` and the console can change.

    Example: sd-pipeline parameters --params params/octank_100gb.yaml
    """
    with reported_errors():
        listed = json.loads(definition_text(read_settings(params)))["Parameters"]
        if as_json:
            sys.stdout.write(json.dumps(listed, indent=2) + "\n")
            return
        table = Table(box=None, pad_edge=False)
        for header in ("parameter", "type", "default", "what it is"):
            table.add_column(header, overflow="fold")
        for parameter in listed:
            default = str(parameter.get("DefaultValue", ""))
            table.add_row(parameter["Name"], parameter["Type"], default, parameter["Description"])
        console.print(table)
