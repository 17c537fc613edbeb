"""Step caching: the result of an earlier execution's step with the same arguments is taken instead of running it.

Reads and writes <state>/cache/<pipeline>/<step>/<digest>.json. What counts is what SageMaker lists for a kind of step
(honoured.yaml), not the number of instances.
"""

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from params.files import write_json
from pipeline_definition.local.definition import DefinedStep
from pipeline_definition.local.records import Record, setting_aside
from pipeline_definition.local.request_checks import honoured

KEY_ATTRIBUTES = honoured("cached")


@dataclass(frozen=True)
class CachedResult:
    source_arn: str
    """The execution that ran it."""
    time: float
    properties: Record
    metadata: Record


class StepCache:
    def __init__(self, folder: Path, pipeline_name: str) -> None:
        self._folder = folder / pipeline_name

    def find(self, step: DefinedStep, arguments: Mapping[str, Any]) -> CachedResult | None:
        """Return the newest result of these arguments that has not expired."""
        path = self._path(step, arguments)
        if step.cache_expires_after_s is None or not path.exists():
            return None
        result = None
        with setting_aside(path):
            result = CachedResult(**json.loads(path.read_text(encoding="utf-8")))
        return result if result and time.time() - result.time <= step.cache_expires_after_s else None

    def keep(self, step: DefinedStep, arguments: Mapping[str, Any], result: CachedResult) -> None:
        if step.cache_expires_after_s is not None:
            write_json(self._path(step, arguments), asdict(result))

    def _path(self, step: DefinedStep, arguments: Mapping[str, Any]) -> Path:
        text = json.dumps([step.type, cache_key(step.type, arguments)], sort_keys=True)
        return self._folder / step.name / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.json"


def cache_key(step_type: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the part of a step's arguments that decides whether it runs again."""
    names = KEY_ATTRIBUTES.get(step_type)
    if names is None:
        return arguments
    key = {name: arguments[name] for name in names if name in arguments}
    if "TrainingJobDefinition" in key:
        definition = key["TrainingJobDefinition"]
        key["TrainingJobDefinition"] = {name: definition.get(name) for name in KEY_ATTRIBUTES["TrainingJobDefinition"]}
    return key
