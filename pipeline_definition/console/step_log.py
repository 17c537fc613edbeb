"""One step's log as the console follows it: the last lines, and the metrics that the definition finds in them.

Reads CloudWatch Logs through `runs.job_logs`, of AWS or of the local control plane; writes nothing.
"""

import re
from collections import defaultdict, deque
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

from pipeline_definition.artifacts.archive import redacted
from pipeline_definition.jobs.planned import all_steps
from pipeline_definition.pages.formats import number
from pipeline_definition.runs.executions import ExecutionStep
from pipeline_definition.runs.job_logs import JobLog, progress_of
from pipeline_definition.session import Target

MOST_LINES: Final = 1000
MOST_CHARACTERS: Final = 4000

Patterns = Mapping[str, re.Pattern[str]]
"""How the training job finds each of its metrics in a line of its log."""


def metric_patterns(definition: Mapping[str, Any]) -> Mapping[str, Patterns]:
    """Return the metric definitions of each training step that has some, by its name."""
    found = defaultdict[str, dict[str, re.Pattern[str]]](dict)
    for step in all_steps(definition["Steps"]):
        for metric in step.get("Arguments", {}).get("AlgorithmSpecification", {}).get("MetricDefinitions") or ():
            # SageMaker knows forms of patterns that Python does not: the job logs the metric, the page shows none.
            with suppress(re.error):
                found[step["Name"]][metric["Name"]] = re.compile(metric["Regex"])
    return dict(found)


class StepLog:
    """A log that grows; lines of its beginning make room for new ones, and their metrics stay."""

    def __init__(self, target: Target, step: ExecutionStep, patterns: Patterns) -> None:
        self._log, self._patterns, self._is_whole = JobLog(target, step), patterns, False
        self.lines = deque[str](maxlen=MOST_LINES)
        self.figures: list[dict[str, float | None]] = []
        """The metrics of each line that has some."""

    def read(self, is_running: bool) -> None:
        """Take what is new; a step that has ended is asked until nothing more comes."""
        if self._is_whole:
            return
        has_more = False
        for stream, whole in self._log.new_lines():
            line, has_more = whole[:MOST_CHARACTERS], True
            if progress_of(line) is None:
                self.lines.append(redacted(f"{stream.rsplit('/', 1)[-1]}: {line.rstrip()}"))
                matches = {name: pattern.search(line) for name, pattern in self._patterns.items()}
                found = {name: number(match[min(1, match.re.groups)]) for name, match in matches.items() if match}
                self.figures += [found] if found else []
        self._is_whole = not (is_running or has_more or self._log.is_behind)
