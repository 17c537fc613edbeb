"""What the console shows of one pipeline, and what it does for the person who uses it.

Reads and writes SageMaker through the readers that the command line has; `upsert` and `start` are the command line's
own, preflight included. Of everything that is shown, credentials are cut out.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC
from typing import Any, Final, Literal

from pipeline_definition.artifacts.archive import redacted
from pipeline_definition.console.live_run import LiveRun
from pipeline_definition.models.registry import PackageGroup
from pipeline_definition.pages.document import EmbeddedPicture, data_address
from pipeline_definition.pages.formats import date
from pipeline_definition.prompting.endpoint import connect, draw_patiently
from pipeline_definition.runs.executions import Executions
from pipeline_definition.session import Target

MOST_RUNS: Final = 25
MOST_ENDPOINTS: Final = 50
MOST_FOLLOWED: Final = 8
# A person is waiting.
PATIENCE_S: Final = 30.0

Decision = Literal["Approved", "Rejected"]


@dataclass(frozen=True)
class Commands:
    """What the command line does for the page."""

    upsert: Callable[[], str]
    """Create the pipeline or update it; return its ARN."""
    start: Callable[[Mapping[str, str]], str]
    """Start an execution with some parameters changed, once preflight has passed; return its ARN."""


class Board:
    """One pipeline, its executions, its model package group, and the endpoints beside it."""

    def __init__(self, target: Target, pipeline: str, group: str, poll_s: float, commands: Commands) -> None:
        self.target, self.pipeline, self.group, self.poll_s, self.commands = target, pipeline, group, poll_s, commands
        self._executions, self._packages = Executions(target), PackageGroup(target, group)
        self._sagemaker = target.client("sagemaker")
        self._live = functools.lru_cache(MOST_FOLLOWED)(lambda arn: LiveRun(target, arn, poll_s))
        # matplotlib and a run's readers are for one thread at a time.
        self._one_at_a_time = threading.Lock()

    def parameters(self) -> list[Mapping[str, Any]]:
        """Return the parameters of the definition that the next execution runs, as SageMaker Studio shows them."""
        return list(redacted(self._executions.current_definition(self.pipeline).get("Parameters", [])))

    def runs(self) -> list[dict[str, str]]:
        """Return the newest executions: ARN, id, status and start."""
        return [
            {
                "arn": item["PipelineExecutionArn"],
                "id": item["PipelineExecutionArn"].rsplit("/", 1)[-1],
                "status": item["PipelineExecutionStatus"],
                "started": date(item["StartTime"].astimezone(UTC)),
            }
            for item in self._executions.list(self.pipeline)[:MOST_RUNS]
        ]

    def run(self, arn: str) -> dict[str, Any]:
        """Return what the page shows of an execution."""
        with self._one_at_a_time:
            return self._live(arn).parts()

    def log(self, arn: str, step: str) -> dict[str, Any]:
        """Return the end of a step's log."""
        with self._one_at_a_time:
            return self._live(arn).log(step)

    def models(self) -> list[Mapping[str, Any]]:
        """Return the group's model packages, newest first."""
        return [redacted(asdict(package)) for package in self._packages.list()]

    def endpoints(self) -> list[Mapping[str, Any]]:
        """Return the summaries of the newest endpoints of the account and region."""
        newest = {"SortBy": "CreationTime", "SortOrder": "Descending", "MaxResults": MOST_ENDPOINTS}
        return list(self._sagemaker.list_endpoints(**newest)["Endpoints"])

    def stop(self, arn: str) -> None:
        """Ask an execution to stop."""
        self._executions.stop(arn)

    def retry(self, arn: str) -> None:
        """Resume an execution that failed or was stopped."""
        self._executions.retry(arn)

    def decide(self, package: str, decision: Decision, reason: str) -> str:
        """Approve or reject a model package; return how it stands."""
        return self._packages.decide(package, decision, reason).status

    def draw(self, endpoint: str, prompt: str, seed: int | None) -> tuple[EmbeddedPicture, ...]:
        """Return what an endpoint draws."""
        request = {"prompt": prompt, "seed": seed, "format": "png"}
        answer = draw_patiently(connect(lambda: self.target, endpoint), request, PATIENCE_S)
        notes = {
            "truncated": "the model did not read the end of the prompt",
            "flagged": "replaced by the safety checker",
        }
        pictures = []
        for one in answer.pictures:
            told = (
                f"seed {one.seed}",
                f"{answer.elapsed_s:.1f} s",
                *(notes[name] for name in notes if getattr(one, name)),
            )
            pictures.append(EmbeddedPicture(data_address(one.content, one.form), prompt, prompt, ", ".join(told)))
        return tuple(pictures)
