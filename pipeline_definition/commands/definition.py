"""`sd-pipeline definition` and `parameters`: what SageMaker gets, without a connection."""

from __future__ import annotations

import json
import sys

from params.settings import load_settings
from pipeline_definition.commands.checks import definition_text
from pipeline_definition.commands.options import LOCAL_PARAMS, AsJson, Params, print_json, print_table


def definition(params: Params = LOCAL_PARAMS) -> None:
    """Print the pipeline definition JSON: offline, without credentials, the same bytes every time.

    Example: sd-pipeline definition --params params/sd2_base.yaml > definition.json
    """
    sys.stdout.write(definition_text(load_settings(params)) + "\n")


def parameters(params: Params = LOCAL_PARAMS, as_json: AsJson = False) -> None:
    """Print the pipeline parameters with their defaults: what `--set` and the console can change.

    Example: sd-pipeline parameters --params params/octank_100gb.yaml
    """
    listed = json.loads(definition_text(load_settings(params)))["Parameters"]
    if as_json:
        print_json(listed)
        return
    rows = ((p["Name"], p["Type"], str(p.get("DefaultValue", "")), p["Description"]) for p in listed)
    print_table(("parameter", "type", "default", "what it is"), rows)
