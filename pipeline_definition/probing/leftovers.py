"""What probes of a pipeline have made and not yet removed: endpoints, models, running jobs, objects.

Reads and deletes them by name. An interrupted probe removes its own; what a killed one left, the next one finds.
"""

import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeVar

from botocore.exceptions import BotoCoreError, ClientError

from params.layout import PROBE
from params.s3 import is_missing, join_uri, split_uri
from pipeline_definition.errors import OperatorError
from pipeline_definition.infrastructure.contents import delete_versions, object_versions
from pipeline_definition.runs.executions import is_busy
from pipeline_definition.session import Target

T = TypeVar("T")
TRIES: Final = 20
DELETE_OBJECTS: Final = "delete_objects"
# In the order of removal: operation that ends or removes one, member with its name, operation that lists them, result.
KINDS: Final = {
    "delete_endpoint": ("EndpointName", "list_endpoints", "Endpoints"),
    "delete_endpoint_config": ("EndpointConfigName", "list_endpoint_configs", "EndpointConfigs"),
    "delete_model": ("ModelName", "list_models", "Models"),
    "stop_training_job": ("TrainingJobName", "list_training_jobs", "TrainingJobSummaries"),
    "stop_processing_job": ("ProcessingJobName", "list_processing_jobs", "ProcessingJobSummaries"),
}
RUNNING: Final = ("InProgress", "Stopping")
# SageMaker deletes no endpoint that is being created, which takes some minutes.
LIMIT_S: Final = 1800.0
SAY_EVERY_S: Final = 60.0


@dataclass
class ProbePatience:
    """How long is waited between two tries, and how often it was."""

    interval_s: float
    waited: int = 0

    def ask(self, call: Callable[[], T]) -> T:
        """Return what a call returns, once the service is not too busy; raises its last error."""
        for _ in range(TRIES):
            try:
                return call()
            except (ClientError, BotoCoreError) as error:
                if not is_busy(error):
                    raise
            self.waited += 1
            time.sleep(self.interval_s)
        return call()


@dataclass(frozen=True)
class Leftovers:
    """What the probes of one pipeline have made."""

    target: Target
    base: str
    prefixes: Sequence[str]
    """s3:// prefixes below which the probe writes."""
    patience: ProbePatience

    def found(self) -> list[tuple[str, str]]:
        """Return (operation that removes it, name) of everything but objects; then the prefixes that hold some."""
        prefixes = (join_uri(prefix, PROBE, f"{self.base}-") for prefix in self.prefixes)
        return list(self._made()) or [(DELETE_OBJECTS, prefix) for prefix in prefixes if any(self._versions(prefix))]

    def remove(self, say: Callable[[str], None]) -> list[str]:
        """Remove all of it; return a line for whatever could not be removed, with the command that removes it."""
        began_s = said_s = time.monotonic()
        while found := self.found():
            problems = [self._problem(*one) for one in found]
            now_s = time.monotonic()
            if now_s - began_s > LIMIT_S or all(problem.startswith("AccessDenied") for problem in problems):
                return [f"{one[1]}: {problem}; {_by_hand(*one)}" for one, problem in zip(found, problems, strict=True)]
            if now_s - said_s > SAY_EVERY_S:
                said_s = now_s
                say(f"removing {', '.join(name for _, name in found)}: {next(filter(None, problems), 'under way')}")
            time.sleep(self.patience.interval_s)
        return []

    def _problem(self, operation: str, name: str) -> str:
        """Ask for one to be removed; return why that is refused now."""
        try:
            if operation == DELETE_OBJECTS:
                list(delete_versions(self.target.client("s3"), split_uri(name)[0], self._versions(name)))
            else:
                getattr(self.target.client("sagemaker"), operation)(**{KINDS[operation][0]: name})
        except ClientError as error:
            return "" if is_missing(error) else f"{error.response['Error']['Code']}: {error}"
        except (BotoCoreError, OperatorError) as error:
            return str(error)
        return ""

    def _made(self) -> Iterator[tuple[str, str]]:
        client = self.target.client("sagemaker")
        for removal, (member, listing, result) in KINDS.items():
            pages = client.get_paginator(listing).paginate(NameContains=self.base)
            items: list[dict[str, Any]] = self.patience.ask(partial(list, pages.search(f"{result}[]")))
            for item in items:
                is_over = removal.startswith("stop") and item[member.replace("Name", "Status")] not in RUNNING
                if self._is_own(item[member]) and not is_over:
                    yield removal, item[member]

    def _is_own(self, name: str) -> bool:
        """Return whether a name is of this pipeline's probes, and not of those of a pipeline with a longer name."""
        return re.match(rf"{re.escape(self.base)}-[0-9a-f]{{8}}[-/]", name) is not None

    def _versions(self, prefix: str) -> Iterator[dict[str, str]]:
        versions = object_versions(self.target.client("s3"), *split_uri(prefix))
        return (one for one in versions if self._is_own(one["Key"].partition(f"/{PROBE}/")[2]))


def _by_hand(operation: str, name: str) -> str:
    if operation == DELETE_OBJECTS:
        return f"aws s3 rm --recursive {name.rsplit('/', 1)[0]}/"
    flag = re.sub(r"(?<!^)(?=[A-Z])", "-", KINDS[operation][0]).lower()
    return f"aws sagemaker {operation.replace('_', '-')} --{flag} {name}"
