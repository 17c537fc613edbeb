"""Runs a probe: starts its jobs, shows them until they have ended, and reads what their hosts wrote.

Reads and writes SageMaker, S3 and CloudWatch Logs of one target.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

from botocore.exceptions import BotoCoreError, ClientError

from params.layout import PROBE_LINE
from params.probe_line import FAILED, GOOD, NOTE, ProbeLine
from params.s3 import split_uri
from pipeline_definition.probing.jobs import Probe, ProbeJob
from pipeline_definition.probing.outcomes import ProbeOutcome, explained, interrupted, throttled
from pipeline_definition.probing.patience import TRIES, ProbePatience
from pipeline_definition.runs.executions import Execution, ExecutionStep, is_busy
from pipeline_definition.runs.job_logs import JobLog, progress_of
from pipeline_definition.runs.watch import RunningCost, Snapshot
from pipeline_definition.session import Target

# How the service's words for a job, or an endpoint, are a step's.
STATUSES: Final = {
    **{"InProgress": "Executing", "Stopping": "Stopping", "Completed": "Succeeded"},
    **{"Creating": "Executing", "Updating": "Executing", "InService": "Succeeded", "Deleting": "Stopped"},
}


@dataclass
class ProbeRun:
    """One probe, while it runs."""

    target: Target
    probe: Probe
    patience: ProbePatience
    wait_s: float
    """How long to wait for a job that does not end, or never gets its hosts."""
    outcomes: dict[str, ProbeOutcome] = field(default_factory=dict)

    def start(self, jobs: Sequence[ProbeJob]) -> None:
        """Start every job; one that is refused is kept as failed."""
        client = self.target.client("sagemaker")
        for job in jobs:
            step = ExecutionStep(job.label, "Executing", datetime.now(UTC))
            self.outcomes[job.label] = ProbeOutcome(job, step)
            for operation, request in job.requests.items():
                try:
                    answer = self.patience.ask(partial(getattr(client, operation), **request))
                except (ClientError, BotoCoreError) as error:
                    ended = replace(step, status="Failed", end=datetime.now(UTC), failure_reason=str(error))
                    self.outcomes[job.label].step = ended
                    break
                made = {"TrainingJob": "TrainingJobArn", "ProcessingJob": "ProcessingJobArn", "Endpoint": "EndpointArn"}
                arns = {kind: {"Arn": answer[member]} for kind, member in made.items() if member in answer}
                self.outcomes[job.label].step = replace(step, metadata=arns)

    def snapshots(self) -> Iterator[Snapshot]:
        """Yield how the jobs stand until all have ended."""
        logs: dict[str, JobLog] = {}
        progress: dict[str, dict[str, Mapping[str, Any]]] = {}
        began_s, late_looks = time.monotonic(), 0
        while True:
            for label, outcome in self.outcomes.items():
                if outcome.step.end is None:
                    self._look(outcome, time.monotonic() - began_s)
                if label not in logs:
                    logs[label] = JobLog(self.target, outcome.step)
                self._read_log(outcome, logs[label], progress)
            yield self._snapshot(progress)
            if all(outcome.step.end for outcome in self.outcomes.values()):
                late_looks += 1
                if late_looks > TRIES or not any(log.is_behind for log in logs.values()):
                    break
            time.sleep(self.patience.interval_s)
        for label, outcome in self.outcomes.items():
            self._finish(outcome, logs[label])
        if self.patience.waited:
            outcome.add(throttled(self.patience.waited))

    def _snapshot(self, progress: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> Snapshot:
        steps = tuple(outcome.step for outcome in self.outcomes.values())
        ended, failed = all(step.end for step in steps), any(step.status != "Succeeded" for step in steps)
        status = "Executing" if not ended else "Failed" if failed else "Succeeded"
        execution = Execution(self.probe.identity, status, "", steps)
        names = tuple(self.outcomes)
        return Snapshot(execution, names, progress, self._cost(), self.target.is_local)

    def _cost(self) -> RunningCost:
        if self.target.is_local:
            return RunningCost()
        hourly = {label: outcome.job.hourly_usd(self.target.region) for label, outcome in self.outcomes.items()}
        return RunningCost({label: usd for label, usd in hourly.items() if usd})

    def _look(self, outcome: ProbeOutcome, waited_s: float) -> None:
        """Ask how a job stands; one that takes too long has failed, and is removed with everything else."""
        try:
            about = self._described(outcome.job)
        except ClientError as error:
            if is_busy(error):
                return
            about = {"FailureReason": str(error), "Status": "Failed"}
        status, reason = STATUSES.get(about["Status"], about["Status"]), about.get("FailureReason", "")
        if status in ("Executing", "Stopping") and waited_s > self.wait_s:
            phase = about.get("SecondaryStatus") or about["Status"]
            status, reason = "Failed", f"the job has not started or not ended after {self.wait_s:.0f} s: {phase}"
        count = sum(item["Status"] == "Interrupted" for item in about.get("SecondaryStatusTransitions", ()))
        if status not in ("Executing", "Stopping"):
            outcome.step = replace(outcome.step, status=status, end=datetime.now(UTC), failure_reason=reason)
            if count:
                outcome.add(interrupted(count))

    def _described(self, job: ProbeJob) -> dict[str, Any]:
        client = self.target.client("sagemaker")
        if job.kind == "endpoint":
            about: dict[str, Any] = client.describe_endpoint(EndpointName=job.name)
            return {**about, "Status": about["EndpointStatus"]}
        name = f"{job.kind.capitalize()}Job"
        describe = client.describe_training_job if job.kind == "training" else client.describe_processing_job
        about = describe(**{f"{name}Name": job.name})
        return {**about, "Status": about[f"{name}Status"]}

    def _read_log(self, outcome: ProbeOutcome, log: JobLog, progress: dict[str, dict[str, Mapping[str, Any]]]) -> None:
        """Follow a job's log: its progress and, should S3 not have them, its lines."""
        for stream, text in log.new_lines():
            outcome.streams.add(stream)
            host = stream.rsplit("/", 1)[-1].rsplit("-", 1)[0]
            if (share := progress_of(text)) is not None:
                progress.setdefault(outcome.job.label, {})[stream] = share
            elif text.startswith(PROBE_LINE):
                # A line may be cut; S3 has it whole.
                with suppress(ValueError):
                    line = ProbeLine.of(json.loads(text.removeprefix(PROBE_LINE)))
                    outcome.hosts.setdefault(host, []).append(line)

    def _finish(self, outcome: ProbeOutcome, log: JobLog) -> None:
        """Read the results of an ended job, and say what of it can be read."""
        if outcome.job.kind == "endpoint":
            if outcome.step.status == "Succeeded":
                self._guard(outcome, lambda: self._take(outcome, self._invoked(outcome.job)))
        else:
            self._guard(outcome, lambda: self._read_results(outcome))
            self._judge_log(outcome, log)
        outcome.judge()

    def _guard(self, outcome: ProbeOutcome, read: Callable[[], None]) -> None:
        try:
            self.patience.ask(read)
        except (ClientError, BotoCoreError, ValueError) as error:
            outcome.add(explained(str(error)))

    def _judge_log(self, outcome: ProbeOutcome, log: JobLog) -> None:
        if log.problem:
            outcome.add(ProbeLine("logs", "", FAILED, log.problem, "without it nobody sees why a job fails"))
        elif outcome.streams:
            outcome.add(ProbeLine("logs", "", GOOD, f"those of {len(outcome.streams)} hosts are read"))
        elif outcome.step.status == "Succeeded":
            outcome.add(ProbeLine("logs", "", NOTE, "no line of them yet", "look again in a minute: they come late"))

    def _read_results(self, outcome: ProbeOutcome) -> None:
        s3, (bucket, prefix) = self.target.client("s3"), split_uri(self.probe.results_uri)
        listed = s3.list_objects_v2(Bucket=bucket, Prefix=f"{prefix}/{outcome.job.name}/").get("Contents", [])
        for item in listed:
            if item["Key"].endswith(".json"):
                self._take(outcome, s3.get_object(Bucket=bucket, Key=item["Key"])["Body"].read())

    def _invoked(self, job: ProbeJob) -> bytes:
        runtime = self.target.client("sagemaker-runtime")
        answer = runtime.invoke_endpoint(EndpointName=job.name, ContentType="application/json", Body=b"{}")
        content: bytes = answer["Body"].read()
        return content

    def _take(self, outcome: ProbeOutcome, content: bytes) -> None:
        result = json.loads(content)
        name = result["host"] if outcome.job.kind != "endpoint" else "endpoint"
        outcome.hosts[name] = [ProbeLine.of(line) for line in result["lines"]]
