"""One execution of a pipeline: what is known about it and each of its steps, on disk after every change.

Writes runs/<execution id>/{execution.json, definition.json, parameters.json, journal.jsonl}.
"""

import dataclasses
import functools
import json
import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from params.files import write_json, write_text
from params.layout import ENDED_STATUSES
from pipeline_definition.local.definition import Definition, parse_definition
from pipeline_definition.local.journal import Journal
from pipeline_definition.local.records import Record
from pipeline_definition.local.resolver import iso_time

# Thousands of executions are of a few versions of a pipeline.
_parsed = functools.lru_cache(64)(parse_definition)
INTERRUPTED = "The control plane ended while this ran; RetryPipelineExecution goes on where it stopped"


@dataclass
class StepState:
    """What is known about one step. A step without a state has not begun."""

    name: str
    status: str = "Starting"
    start_time: float = 0.0
    end_time: float | None = None
    failure_reason: str | None = None
    metadata: Record = field(default_factory=dict)
    attempts: int = 0
    cache_source: str | None = None
    """ARN of the execution whose result was taken."""
    properties: Record | None = None

    def as_api(self, display: Mapping[str, Any]) -> Record:
        """Return a member of ListPipelineExecutionSteps; what is None has no value."""
        return {
            "StepName": self.name,
            "StepStatus": self.status,
            "StepDisplayName": display.get("DisplayName"),
            "StepDescription": display.get("Description"),
            "StartTime": self.start_time,
            "EndTime": self.end_time,
            "FailureReason": self.failure_reason,
            "AttemptCount": self.attempts,
            "Metadata": self.metadata,
            "CacheHitResult": self.cache_source and {"SourcePipelineExecutionArn": self.cache_source},
        }


@dataclass(frozen=True)
class ExecutionIdentity:
    """What does not change about an execution."""

    arn: str
    pipeline_name: str
    pipeline_arn: str
    state_id: str
    """The state folder to which it belongs: several may share a folder of runs."""
    start_time: float
    given_parameters: list[dict[str, str]]
    """As StartPipelineExecution got them."""
    parallelism: int | None = None
    display_name: str | None = None
    description: str | None = None
    client_token: str | None = None
    pipeline_version: int | None = None

    @property
    def id(self) -> str:
        """The last part of the ARN, and the name of the run's folder."""
        return self.arn.rsplit("/", 1)[-1]

    def variables(self) -> dict[str, str]:
        return {
            "PipelineExecutionId": self.id,
            "PipelineExecutionArn": self.arn,
            "PipelineName": self.pipeline_name,
            "PipelineArn": self.pipeline_arn,
            "StartDateTime": iso_time(self.start_time),
        }


class LocalExecution:
    """One execution. Changes are written before they can be seen."""

    def __init__(self, folder: Path, identity: ExecutionIdentity, definition: Definition, parameters: Record) -> None:
        self.folder, self.identity, self.definition, self.parameters = folder, identity, definition, parameters
        self.status = "Executing"
        self.failure_reason: str | None = None
        self.modified_time = identity.start_time
        self.steps: dict[str, StepState] = {}
        self.attempts: Counter[str] = Counter()
        """Of each step, in all retries of the execution."""
        self._journal = Journal(folder / "journal.jsonl")
        self._lock = threading.RLock()

    @classmethod
    def begin(cls, folder: Path, identity: ExecutionIdentity, definition: Definition, parameters: Record) -> Self:
        folder.mkdir(parents=True)
        write_text(folder / "definition.json", definition.text)
        write_json(folder / "parameters.json", parameters)
        execution = cls(folder, identity, definition, parameters)
        execution.set_status("Executing")
        execution.rename()
        return execution

    @classmethod
    def load(cls, folder: Path) -> Self:
        identity = ExecutionIdentity(**json.loads((folder / "execution.json").read_text(encoding="utf-8")))
        definition = _parsed((folder / "definition.json").read_text(encoding="utf-8"))
        parameters = json.loads((folder / "parameters.json").read_text(encoding="utf-8"))
        execution = cls(folder, identity, definition, parameters)
        for entry in execution._journal.entries():
            execution._replay(entry)
        return execution

    @property
    def properties(self) -> dict[str, Record]:
        return {name: step.properties for name, step in self.steps.items() if step.properties is not None}

    def set_status(self, status: str, reason: str | None = None) -> None:
        self._change({"execution": {"time": time.time(), "status": status, "failure_reason": reason}})

    def set_step(self, name: str, **changes: Any) -> StepState:
        """Change what is known about a step; the first change begins it."""
        with self._lock:
            state = dataclasses.replace(self.steps.get(name) or StepState(name, start_time=time.time()), **changes)
            self._change({"time": time.time(), "step": dataclasses.asdict(state)})
            return state

    def forget_unfinished_steps(self) -> None:
        """Take back all steps that have not succeeded: they begin anew. Their attempts go on being counted."""
        for name in [name for name, step in self.steps.items() if step.status != "Succeeded"]:
            self._change({"time": time.time(), "forgotten": name})

    def rename(self, display_name: str | None = None, description: str | None = None) -> None:
        """Change what people call it, and write who it is: last, for a folder without it is not an execution."""
        given: Record = {"display_name": display_name, "description": description}
        self.identity = dataclasses.replace(self.identity, **{key: value for key, value in given.items() if value})
        write_json(self.folder / "execution.json", dataclasses.asdict(self.identity))

    def interrupt(self) -> None:
        """Say that the control plane ended while this ran."""
        for step in [step for step in self.steps.values() if step.status not in ENDED_STATUSES]:
            self.set_step(step.name, status="Stopped", end_time=time.time(), failure_reason=INTERRUPTED)
        self.set_status("Stopped", INTERRUPTED)

    def _change(self, entry: Record) -> None:
        with self._lock:
            self._journal.append(entry)
            self._replay(entry)

    def _replay(self, entry: Record) -> None:
        if "execution" in entry:
            change = entry["execution"]
            self.status, self.failure_reason = change["status"], change["failure_reason"]
            self.modified_time = change["time"]
        elif "step" in entry:
            state = StepState(**entry["step"])
            self.steps[state.name] = state
            self.attempts[state.name] = max(self.attempts[state.name], state.attempts)
        elif "forgotten" in entry:
            self.steps.pop(entry["forgotten"], None)
