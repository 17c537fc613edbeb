"""What the console shows of one pipeline. Of everything that is shown, credentials are cut out.

Reads SageMaker through the readers that the command line has, and asks endpoints for pictures.
"""

import functools
import threading
from collections.abc import Mapping
from typing import Any, Final

from pipeline_definition.artifacts.archive import redacted
from pipeline_definition.console.live_run import LiveRun
from pipeline_definition.models.registry import PackageGroup
from pipeline_definition.pages.document import EmbeddedPicture, data_address
from pipeline_definition.prompting.endpoint import connect, draw_patiently
from pipeline_definition.runs.executions import Executions
from pipeline_definition.session import Target

# A person is waiting.
PATIENCE_S: Final = 30.0


class Board:
    """One pipeline, its executions, its model package group, and the endpoints beside it."""

    def __init__(self, target: Target, pipeline: str, group: str, poll_s: float) -> None:
        self.target, self.pipeline, self.group, self.poll_s = target, pipeline, group, poll_s
        self.executions, self.packages = Executions(target), PackageGroup(target, group)
        self.sagemaker = target.client("sagemaker")
        self._live = functools.lru_cache(8)(lambda arn: LiveRun(target, arn, poll_s))
        # matplotlib and a run's readers are for one thread at a time.
        self._one_at_a_time = threading.Lock()

    def parameters(self) -> list[Mapping[str, Any]]:
        """Return the parameters of the definition that the next execution runs, as SageMaker Studio shows them."""
        return list(redacted(self.executions.current_definition(self.pipeline).get("Parameters", [])))

    def run(self, arn: str) -> dict[str, Any]:
        with self._one_at_a_time:
            return self._live(arn).parts()

    def log(self, arn: str, step: str) -> dict[str, Any]:
        with self._one_at_a_time:
            return self._live(arn).log(step)

    def draw(self, endpoint: str, request: Mapping[str, Any]) -> list[EmbeddedPicture]:
        answer = draw_patiently(connect(lambda: self.target, endpoint), request, PATIENCE_S)
        pictures = []
        for one in answer.pictures:
            told = ", ".join((f"seed {one.seed}", f"{answer.elapsed_s:.1f} s", *one.notes))
            pictures.append(EmbeddedPicture(data_address(one.content, one.form), request["prompt"], caption=told))
        return pictures
