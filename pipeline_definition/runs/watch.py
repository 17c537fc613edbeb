"""Polls an execution until it ends: its steps, how far their jobs are, and what it has cost.

Reads SageMaker and CloudWatch Logs every `interval_s`; writes nothing. `pipeline_definition.runs.live_view` shows it.

Costs are estimates, the seconds of the steps' hosts at the price file's prices: SageMaker bills from when the hosts are
ready, and a tuner's trials one by one. On this machine there is nothing to pay.
"""

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, Self

from botocore.exceptions import BotoCoreError, ClientError

from pipeline_definition.checks.findings import with_fix
from pipeline_definition.cost.prices import load_prices
from pipeline_definition.jobs.planned import Values, all_steps, planned_jobs
from pipeline_definition.runs.executions import Execution, Executions, ExecutionStep, summarise
from pipeline_definition.runs.job_logs import JobLog, progress_of
from pipeline_definition.session import Target

Progress = Mapping[str, Mapping[str, Any]]
"""Newest progress line of each log stream of a step: one for each host, and for each trial."""
SECONDS_PER_HOUR: Final = 3600.0


@dataclass(frozen=True)
class RunningCost:
    usd_per_hour: Mapping[str, float] = field(default_factory=dict)
    """By step; a step without a job, or without a price, is not in it."""

    @classmethod
    def load(cls, target: Target, definition: Mapping[str, Any], parameters: Mapping[str, str]) -> Self:
        """Return the prices of an execution's steps: none on this machine, or in a region without known prices."""
        if target.is_local:
            return cls()
        prices, costs = load_prices(), defaultdict[str, list[float]](list)
        for job in planned_jobs(definition, Values(definition, parameters)):
            usd = prices.in_region(target.region, job.instance.name, "spot" if job.spot else "on_demand")
            if job.program != "serve":
                costs[job.step].append(usd * job.count * job.parallel)
        return cls({step: sum(groups) for step, groups in costs.items() if all(groups)})

    def step_usd(self, step: ExecutionStep) -> float | None:
        """Return what a step has cost; None where that is not known, or nothing was run."""
        price = self.usd_per_hour.get(step.name)
        if price is None or step.seconds is None:
            return None
        return 0.0 if step.cached else price * step.seconds / SECONDS_PER_HOUR

    def usd(self, execution: Execution) -> float | None:
        """Return what the steps have cost together; None where no price is known."""
        return sum(self.step_usd(step) or 0.0 for step in execution.steps) if self.usd_per_hour else None


@dataclass(frozen=True)
class Snapshot:
    execution: Execution
    names: tuple[str, ...]
    """Names of the definition's steps, begun or not."""
    progress: Mapping[str, Progress]
    """By running step."""
    cost: RunningCost
    is_local: bool
    problems: tuple[str, ...] = ()
    """Why the progress of running steps is not known, a line each."""

    def steps(self) -> list[ExecutionStep]:
        """Return every step of the definition, in its order."""
        return [self.execution.step(name) or ExecutionStep(name, "waiting") for name in self.names]

    def as_dict(self) -> dict[str, Any]:
        content = summarise(self.execution, None)
        for step in self.execution.steps:
            about = content["steps"][step.name]
            about["cost_usd"] = self.cost.step_usd(step)
            if step.name in self.progress:
                about["progress"] = [dict(line) for line in self.progress[step.name].values()]
        usd = 0.0 if self.is_local else self.cost.usd(self.execution)
        if self.problems:
            content["problems"] = list(self.problems)
        return {**content, "waiting": [step.name for step in self.steps() if step.status == "waiting"], "cost_usd": usd}


class Watcher:
    def __init__(self, target: Target, arn: str, interval_s: float) -> None:
        """Read what does not change: the definition, the parameters, and with them the prices."""
        self._target, self._arn, self._interval_s = target, arn, interval_s
        self._executions = Executions(target)
        definition = self._executions.definition(arn)
        self._names = tuple(step["Name"] for step in all_steps(definition["Steps"]))
        self._cost = RunningCost.load(target, definition, self._executions.parameters(arn))
        self._logs: dict[str, JobLog] = {}
        self._progress: dict[str, dict[str, Mapping[str, Any]]] = {}
        self._known: Execution | None = None
        self._sagemaker = target.client("sagemaker")

    def snapshots(self) -> Iterator[Snapshot]:
        """Yield the execution until it has ended; the last one is how it ended."""
        while True:
            snapshot = self.look()
            yield snapshot
            if snapshot.execution.is_finished:
                return
            time.sleep(self._interval_s)

    def look(self) -> Snapshot:
        execution = self._known = self._executions.describe(self._arn, self._known)
        running = [step for step in execution.steps if step.status == "Executing"]
        for step in (step for step in running if step.metadata):
            if step.name not in self._logs:
                # Making its client takes as long as a whole look at the execution.
                self._logs[step.name] = JobLog(self._target, step)
            for stream, line in self._logs[step.name].new_lines():
                if about := progress_of(line):
                    self._progress.setdefault(step.name, {})[stream] = about
        progress = {step.name: dict(self._progress[step.name]) for step in running if step.name in self._progress}
        troubles = [execution.problem, *(log.problem for log in self._logs.values()), *map(self._trouble, running)]
        problems = tuple(dict.fromkeys(trouble for trouble in troubles if trouble))
        return Snapshot(execution, self._names, progress, self._cost, self._target.is_local, problems)

    def _trouble(self, step: ExecutionStep) -> str:
        """Return what keeps a running step waiting: a job that failed and will be tried again, or lost its hosts."""
        for kind, call in (("TrainingJob", "describe_training_job"), ("ProcessingJob", "describe_processing_job")):
            # Its state is a convenience; what may not be asked is said elsewhere.
            with suppress(ClientError, BotoCoreError):
                name = (step.arn(kind) or "").rsplit("/", 1)[-1]
                about = getattr(self._sagemaker, call)(**{f"{kind}Name": name}) if name else {}
                if about.get(f"{kind}Status") == "Failed":
                    return f"{step.name} waits to try again: {with_fix(about.get('FailureReason', ''))}".splitlines()[0]
                if about.get("SecondaryStatus") == "Interrupted":
                    return f"{step.name}: its spot hosts were taken back; it goes on from its checkpoint on others"
        return ""
