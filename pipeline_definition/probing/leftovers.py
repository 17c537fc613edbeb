"""What probes of a pipeline have made and not yet removed: endpoints, models, running jobs, objects.

Reads and deletes them by name. An interrupted probe removes its own; what a killed one left, the next one finds.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from botocore.exceptions import BotoCoreError, ClientError

from params.layout import PROBE
from params.s3 import is_missing, join_uri, split_uri
from pipeline_definition.errors import OperatorError
from pipeline_definition.infrastructure.contents import delete_versions, object_versions
from pipeline_definition.probing.patience import ProbePatience
from pipeline_definition.session import Target

# (list operation, its result, member with the name, operation that ends or removes one), in the order of removal.
KINDS: Final = (
    ("list_endpoints", "Endpoints", "EndpointName", "delete_endpoint"),
    ("list_endpoint_configs", "EndpointConfigs", "EndpointConfigName", "delete_endpoint_config"),
    ("list_models", "Models", "ModelName", "delete_model"),
    ("list_training_jobs", "TrainingJobSummaries", "TrainingJobName", "stop_training_job"),
    ("list_processing_jobs", "ProcessingJobSummaries", "ProcessingJobName", "stop_processing_job"),
)
RUNNING: Final = ("InProgress", "Stopping")
# SageMaker deletes no endpoint that is being created, which takes some minutes.
LIMIT_S: Final = 1800.0
SAY_EVERY_S: Final = 60.0


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
        made = list(self._made())
        return made or [("delete_objects", prefix) for prefix in self._prefixes() if any(self._versions(prefix))]

    def remove(self, say: Callable[[str], None]) -> list[str]:
        """Remove all of it; return a line for whatever could not be removed, with the command that removes it."""
        began_s = said_s = time.monotonic()
        while found := self.found():
            problems = [self._problem(*one) for one in found]
            now_s = time.monotonic()
            if now_s - began_s > LIMIT_S or all(problem.startswith("AccessDenied") for problem in problems):
                return [_by_hand(*one, problem) for one, problem in zip(found, problems, strict=True)]
            if now_s - said_s > SAY_EVERY_S:
                said_s = now_s
                say(f"removing {', '.join(name for _, name in found)}: {next(filter(None, problems), 'under way')}")
            time.sleep(self.patience.interval_s)
        return []

    def _problem(self, operation: str, name: str) -> str:
        """Ask for one to be removed; return why that is refused now."""
        try:
            if operation == "delete_objects":
                list(delete_versions(self.target.client("s3"), split_uri(name)[0], self._versions(name)))
            else:
                member = next(kind[2] for kind in KINDS if kind[3] == operation)
                getattr(self.target.client("sagemaker"), operation)(**{member: name})
        except ClientError as error:
            return "" if is_missing(error) else f"{error.response['Error']['Code']}: {error}"
        except (BotoCoreError, OperatorError) as error:
            return str(error)
        return ""

    def _made(self) -> Iterator[tuple[str, str]]:
        client = self.target.client("sagemaker")
        for listing, result, member, removal in KINDS:
            pages = client.get_paginator(listing).paginate(NameContains=self.base)
            for page in self._listed(pages):
                for item in page[result]:
                    status = item.get(member.replace("Name", "Status"), RUNNING[0])
                    if self._is_own(item[member]) and (not removal.startswith("stop") or status in RUNNING):
                        yield removal, item[member]

    def _listed(self, pages: Any) -> list[Any]:
        return self.patience.ask(lambda: list(pages))

    def _is_own(self, name: str) -> bool:
        """Return whether a name is of this pipeline's probes, and not of those of a pipeline with a longer name."""
        return re.match(rf"{re.escape(self.base)}-[0-9a-f]{{8}}[-/]", name) is not None

    def _prefixes(self) -> list[str]:
        return [join_uri(prefix, PROBE, f"{self.base}-") for prefix in self.prefixes]

    def _versions(self, prefix: str) -> Iterator[dict[str, str]]:
        versions = object_versions(self.target.client("s3"), *split_uri(prefix))
        return (one for one in versions if self._is_own(one["Key"].partition(f"/{PROBE}/")[2]))


def _by_hand(operation: str, name: str, problem: str) -> str:
    if operation == "delete_objects":
        return f"{name}: {problem}; aws s3 rm --recursive {name.rsplit('/', 1)[0]}/"
    member = next(kind[2] for kind in KINDS if kind[3] == operation)
    flag = re.sub(r"(?<!^)(?=[A-Z])", "-", member).lower()
    return f"{name}: {problem}; aws sagemaker {operation.replace('_', '-')} --{flag} {name}"
