"""What the definition's tests share: each set's definition, built once, and its arguments at their defaults."""

import functools
import json
from pathlib import Path
from typing import Any

from params.settings import Settings, load_settings
from pipeline_definition.cost.host_hours import priced
from pipeline_definition.definition.pipeline import build_definition

PARAMETER_SETS = sorted(path.stem for path in Path("params").glob("*.yaml"))


@functools.cache
def text_of(name: str) -> str:
    return build_definition(priced(load_settings(Path("params") / f"{name}.yaml")))


def definition_of(name: str) -> dict[str, Any]:
    return json.loads(text_of(name))


def built(settings: Settings) -> dict[str, Any]:
    """Return the definition of settings as they are, without prices filled in."""
    return json.loads(build_definition(settings))


def all_steps(definition: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return every step by name, those behind conditions included."""
    found: dict[str, dict[str, Any]] = {}
    for step in definition["Steps"]:
        found[step["Name"]] = step
        for branch in ("IfSteps", "ElseSteps"):
            found |= all_steps({"Steps": step["Arguments"].get(branch, [])}) if step["Type"] == "Condition" else {}
    return found


def at_defaults(value: Any, parameters: dict[str, Any]) -> Any:
    """Resolve a step's arguments with parameters at their defaults and a text for what only a run knows."""
    if isinstance(value, list):
        return [at_defaults(item, parameters) for item in value]
    if not isinstance(value, dict):
        return value
    if set(value) == {"Get"}:
        kind, rest = value["Get"].split(".", 1)
        return parameters[rest] if kind == "Parameters" else "s3://bucket/known-at-run-time"
    if set(value) == {"Std:Join"}:
        return value["Std:Join"]["On"].join(str(at_defaults(v, parameters)) for v in value["Std:Join"]["Values"])
    if set(value) == {"Std:JsonGet"}:
        return 1.0
    return {key: at_defaults(item, parameters) for key, item in value.items()}


def defaults_of(definition: dict[str, Any]) -> dict[str, Any]:
    return {parameter["Name"]: parameter["DefaultValue"] for parameter in definition["Parameters"]}
