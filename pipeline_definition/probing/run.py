"""Runs a probe: starts its jobs, shows them until they have ended, reads what their hosts wrote, and gives the verdict.

Reads and writes SageMaker, S3 and CloudWatch Logs. A job's refusal or failure is a line like any other, with its fix.
"""

import json
import re
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

from botocore.exceptions import BotoCoreError, ClientError

from params.layout import PROBE_LINE
from params.programs.probe import FAILED, GOOD, NOTE, ProbeLine
from params.s3 import split_uri
from pipeline_definition.checks.findings import OF_JOBS, fix_of
from pipeline_definition.probing.jobs import Probe, ProbeJob
from pipeline_definition.probing.leftovers import TRIES, ProbePatience
from pipeline_definition.runs.executions import Execution, ExecutionStep, is_busy
from pipeline_definition.runs.job_logs import JobLog, progress_of
from pipeline_definition.runs.watch import RunningCost, Snapshot
from pipeline_definition.session import Target

MARKS: Final = {GOOD: "✓", NOTE: "·", FAILED: "✗"}
# How the service's words for a job, or an endpoint, are a step's.
STATUSES: Final = {
    **{"InProgress": "Executing", "Stopping": "Stopping", "Completed": "Succeeded"},
    **{"Creating": "Executing", "Updating": "Executing", "InService": "Succeeded", "Deleting": "Stopped"},
}
NOUNS: Final = {"processing": "ProcessingJob", "training": "TrainingJob", "endpoint": "Endpoint"}


@dataclass
class ProbeOutcome:
    """One job of the probe, once it has ended."""

    job: ProbeJob
    step: ExecutionStep
    hosts: dict[str, list[ProbeLine]] = field(default_factory=dict)
    """Lines by host; what SageMaker said has the host ``."""
    streams: set[str] = field(default_factory=set)
    """Log streams that could be read: one for each host."""

    def add(self, check: str, status: str, text: str, fix: str = "") -> None:
        self.hosts.setdefault("", []).append(ProbeLine(check, "", status, text, fix))

    def explain(self, reason: str) -> None:
        """Add why a job failed or was refused: the check that its reason belongs to, and the fix."""
        text = " ".join(reason.split())[:600]
        known = next(known for known in OF_JOBS if re.search(known["words"], text))
        self.add(known["check"], FAILED, text, fix_of(text) or known["fix"])

    def judge(self) -> None:
        if self.step.status != "Succeeded":
            self.explain(self.step.failure_reason or f"the job is {self.step.status}")
            return
        self.add("job", GOOD, f"ran for {self.step.seconds or 0:.0f} s, its start included")
        expected, named = sum(self.job.hosts.values()), len([host for host in self.hosts if host])
        if named < expected:
            self.add("results", FAILED, f"{named} of {expected} hosts left a result", "see the logs of the others")

    def as_dict(self) -> dict[str, Any]:
        # By name, whichever host answered first; what SageMaker itself says comes last.
        hosts = sorted(self.hosts, key=lambda name: (not name, name))
        return {
            "name": self.job.name,
            "steps": list(self.job.steps),
            "kind": self.job.kind,
            "instances": dict(self.job.hosts),
            "status": self.step.status,
            "seconds": self.step.seconds,
            "hosts": {host or "sagemaker": [asdict(line) for line in self.hosts[host]] for host in hosts},
        }


def verdict_lines(outcomes: Sequence[ProbeOutcome]) -> Iterator[str]:
    """Yield the lines of every job and host, then the verdict."""
    for outcome in outcomes:
        yield f"\n{outcome.job.label} ({outcome.job.what})"
        for host, lines in sorted(outcome.hosts.items()):
            for line in lines:
                yield f"  {host or 'SageMaker':10} {MARKS[line.status]} {line.check:12}{_text(line)}"
    counts = Counter(line.status for _, line in _all_lines(outcomes))
    yield f"\n{counts.total()} checks: {counts[GOOD]} good, {counts[NOTE]} to know, {counts[FAILED]} failed"
    for status, heading in ((NOTE, "to know"), (FAILED, "failed")):
        for places, line in told_once(outcomes, status):
            yield f"{heading}: {line.check} ({', '.join(places)}): {_text(line)}"
            yield f"  fix: {line.fix}"
    if not counts[FAILED]:
        yield "verdict: what was probed works"


def verdict_dict(outcomes: Sequence[ProbeOutcome], kept: Sequence[str]) -> dict[str, Any]:
    """Return the result for programs; `kept` is what could not be removed."""
    failed = told_once(outcomes, FAILED)
    return {
        "failed": len(failed) + len(kept),
        "failures": [{**asdict(line), "where": places} for places, line in failed],
        "left_behind": list(kept),
        "jobs": [outcome.as_dict() for outcome in outcomes],
    }


def told_once(outcomes: Sequence[ProbeOutcome], status: str) -> list[tuple[list[str], ProbeLine]]:
    """Return (places, line) of every line of a status; one fault in several places is told once."""
    told: dict[tuple[str, str, str], tuple[list[str], ProbeLine]] = {}
    for place, line in _all_lines(outcomes):
        if line.status == status:
            told.setdefault((line.check, line.subject, line.fix), ([], line))[0].append(place)
    return list(told.values())


def _all_lines(outcomes: Sequence[ProbeOutcome]) -> Iterator[tuple[str, ProbeLine]]:
    for outcome in outcomes:
        for host, lines in outcome.hosts.items():
            yield from ((f"{outcome.job.label} {host}".rstrip(), line) for line in lines)


def _text(line: ProbeLine) -> str:
    return f"{line.subject}: {line.text}" if line.subject else line.text


@dataclass
class ProbeRun:
    target: Target
    probe: Probe
    patience: ProbePatience
    wait_s: float
    """How long to wait for a job that does not end, or never gets its hosts."""
    outcomes: dict[str, ProbeOutcome] = field(default_factory=dict)
    progress: dict[str, dict[str, Mapping[str, Any]]] = field(default_factory=dict)
    """Newest progress line of each log stream, by job."""

    def start(self, jobs: Sequence[ProbeJob]) -> None:
        """Start every job; one that is refused is kept as failed."""
        client = self.target.client("sagemaker")
        for job in jobs:
            step = ExecutionStep(job.label, "Executing", datetime.now(UTC))
            outcome = self.outcomes[job.label] = ProbeOutcome(job, step)
            try:
                for operation, request in job.requests.items():
                    answer = self.patience.ask(partial(getattr(client, operation), **request))
            except (ClientError, BotoCoreError) as error:
                outcome.step = replace(step, status="Failed", end=datetime.now(UTC), failure_reason=str(error))
            else:
                noun = NOUNS[job.kind]
                outcome.step = replace(step, metadata={noun: {"Arn": answer[f"{noun}Arn"]}})

    def snapshots(self) -> Iterator[Snapshot]:
        """Yield how the jobs stand until all have ended, and their logs are read."""
        began_s, late_looks = time.monotonic(), 0
        logs = {label: JobLog(self.target, outcome.step) for label, outcome in self.outcomes.items()}
        while True:
            for label, outcome in self.outcomes.items():
                if outcome.step.end is None:
                    self._look(outcome, time.monotonic() - began_s)
                self._read_log(outcome, logs[label])
            yield self._snapshot()
            if all(outcome.step.end for outcome in self.outcomes.values()):
                late_looks += 1
                if late_looks > TRIES or not any(log.is_behind for log in logs.values()):
                    break
            time.sleep(self.patience.interval_s)
        for label, outcome in self.outcomes.items():
            self._finish(outcome, logs[label])
        if waited := self.patience.waited:
            fix = "nothing to do: the account's programs ask more than is answered"
            outcome.add("throttling", NOTE, f"{waited} requests were throttled, and sent again", fix)

    def _snapshot(self) -> Snapshot:
        steps = tuple(outcome.step for outcome in self.outcomes.values())
        ended, failed = all(step.end for step in steps), any(step.status != "Succeeded" for step in steps)
        status = "Executing" if not ended else "Failed" if failed else "Succeeded"
        execution = Execution(self.probe.identity, status, "", steps)
        hourly = {label: outcome.job.hourly_usd(self.target.region) for label, outcome in self.outcomes.items()}
        cost = RunningCost({label: usd for label, usd in hourly.items() if usd and not self.target.is_local})
        return Snapshot(execution, tuple(self.outcomes), self.progress, cost, self.target.is_local)

    def _look(self, outcome: ProbeOutcome, waited_s: float) -> None:
        """Ask how a job stands; one that takes too long has failed, and is removed with everything else."""
        noun = NOUNS[outcome.job.kind]
        operation = list(outcome.job.requests)[-1].replace("create", "describe")
        try:
            about = getattr(self.target.client("sagemaker"), operation)(**{f"{noun}Name": outcome.job.name})
        except ClientError as error:
            if is_busy(error):
                return
            about = {"FailureReason": str(error), f"{noun}Status": "Failed"}
        own, reason = about[f"{noun}Status"], about.get("FailureReason", "")
        status = STATUSES.get(own, own)
        if status in ("Executing", "Stopping"):
            if waited_s <= self.wait_s:
                return
            phase = about.get("SecondaryStatus") or own
            status, reason = "Failed", f"the job has not started or not ended after {self.wait_s:.0f} s: {phase}"
        outcome.step = replace(outcome.step, status=status, end=datetime.now(UTC), failure_reason=reason)
        if count := sum(item["Status"] == "Interrupted" for item in about.get("SecondaryStatusTransitions", ())):
            fix = "nothing to do: checkpoints make that safe; without spot it does not happen"
            outcome.add("spot", NOTE, f"SageMaker took the hosts back {count} times, and the job went on", fix)

    def _read_log(self, outcome: ProbeOutcome, log: JobLog) -> None:
        """Follow a job's log: its progress and, should S3 not have them, its lines."""
        for stream, text in log.new_lines():
            outcome.streams.add(stream)
            host = stream.rsplit("/", 1)[-1].rsplit("-", 1)[0]
            if (share := progress_of(text)) is not None:
                self.progress.setdefault(outcome.job.label, {})[stream] = share
            elif text.startswith(PROBE_LINE):
                # A line may be cut; S3 has it whole.
                with suppress(ValueError):
                    line = ProbeLine.of(json.loads(text.removeprefix(PROBE_LINE)))
                    outcome.hosts.setdefault(host, []).append(line)

    def _finish(self, outcome: ProbeOutcome, log: JobLog) -> None:
        is_ended_well, is_endpoint = outcome.step.status == "Succeeded", outcome.job.kind == "endpoint"
        try:
            if is_ended_well or not is_endpoint:
                self.patience.ask(partial(self._invoke if is_endpoint else self._read_results, outcome))
        except (ClientError, BotoCoreError, ValueError) as error:
            outcome.explain(str(error))
        if log.problem:
            outcome.add("logs", FAILED, log.problem, "without it nobody sees why a job fails")
        elif outcome.streams:
            outcome.add("logs", GOOD, f"those of {len(outcome.streams)} hosts are read")
        elif is_ended_well and not is_endpoint:
            outcome.add("logs", NOTE, "no line of them yet", "look again in a minute: they come late")
        outcome.judge()

    def _read_results(self, outcome: ProbeOutcome) -> None:
        s3, (bucket, prefix) = self.target.client("s3"), split_uri(self.probe.results_uri)
        listed = s3.list_objects_v2(Bucket=bucket, Prefix=f"{prefix}/{outcome.job.name}/").get("Contents", [])
        for key in (item["Key"] for item in listed if item["Key"].endswith(".json")):
            result = json.load(s3.get_object(Bucket=bucket, Key=key)["Body"])
            outcome.hosts[result["host"]] = [ProbeLine.of(line) for line in result["lines"]]

    def _invoke(self, outcome: ProbeOutcome) -> None:
        runtime = self.target.client("sagemaker-runtime")
        answer = runtime.invoke_endpoint(EndpointName=outcome.job.name, ContentType="application/json", Body=b"{}")
        outcome.hosts["endpoint"] = [ProbeLine.of(line) for line in json.load(answer["Body"])["lines"]]
