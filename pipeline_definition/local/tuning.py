"""Hyperparameter tuning jobs: real trials, several at once, and the best of them."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from pipeline_definition.local.errors import StepFailureError, StepStoppedError
from pipeline_definition.local.jobs import Jobs
from pipeline_definition.local.records import Record, page, pick
from pipeline_definition.local.search_space import trial_hyperparameters
from pipeline_definition.local.services import Services
from pipeline_definition.local.stop_signal import StopSignal
from pipeline_definition.local.training import TrainingJobs

_KEPT = (
    *("AlgorithmSpecification", "RoleArn", "InputDataConfig", "VpcConfig", "OutputDataConfig", "ResourceConfig"),
    *("StoppingCondition", "EnableNetworkIsolation", "EnableInterContainerTrafficEncryption", "CheckpointConfig"),
    *("EnableManagedSpotTraining", "RetryStrategy", "Environment"),
)


class TuningJobs(Jobs):
    """All tuning jobs."""

    kind, prefix = "hyper-parameter-tuning-job", "HyperParameterTuningJob"
    summary_members = ("TrainingJobStatusCounters", "ObjectiveStatusCounters")

    def __init__(self, services: Services, training: TrainingJobs) -> None:
        super().__init__(services, services.tuning_jobs)
        self._training = training
        self._updating = threading.Lock()

    def describe(self, request: Mapping[str, Any]) -> Record:
        """Answer DescribeHyperParameterTuningJob; the trials have an operation of their own."""
        record = super().describe(request)
        record.pop("TrainingJobSummaries", None)
        return record

    def summary(self, record: Record) -> Record:
        """Return what ListHyperParameterTuningJobs shows of a search."""
        return {**super().summary(record), "Strategy": record[_CONFIG]["Strategy"]}

    def list_trials(self, request: Mapping[str, Any]) -> Record:
        """Answer ListTrainingJobsForHyperParameterTuningJob."""
        trials = super().describe(request)["TrainingJobSummaries"]
        if request.get("SortBy") == "FinalObjectiveMetricValue":
            done = [trial for trial in trials if _OBJECTIVE in trial]
            done.sort(key=lambda t: t[_OBJECTIVE]["Value"], reverse=request.get("SortOrder") == "Descending")
            return {"TrainingJobSummaries": done}
        name, status = "TrainingJobName", "TrainingJobStatus"
        return page(request, trials, result="TrainingJobSummaries", name=name, status=status, summary=dict)

    def new_record(self, request: Mapping[str, Any]) -> Record:
        """No trial has begun."""
        return {"TrainingJobSummaries": [], **_counters([])}

    def work(self, name: str, request: Mapping[str, Any], log_dir: Path, stop: StopSignal) -> Record:
        """Run the trials; fail when none has reached a value of the objective."""
        definition, config = _definition(request), request[_CONFIG]
        objective = config.get("HyperParameterTuningJobObjective") or definition["TuningObjective"]
        ranges = config.get("ParameterRanges") or definition["HyperParameterRanges"]
        trials = trial_hyperparameters(config, ranges, search_seed(request))
        parallel = min(int(config["ResourceLimits"]["MaxParallelTrainingJobs"]), len(trials))
        summaries: dict[int, Record] = {}

        def run(number: int) -> None:
            training = _training_request(name, number, definition, trials[number])
            folder = log_dir / f"trial-{number + 1:03d}"
            summaries[number] = self._trial(name, training, trials[number], objective, folder, stop, parallel)
            self._show(name, summaries, objective)

        with ThreadPoolExecutor(parallel) as pool:
            for future in [pool.submit(run, number) for number in range(len(trials))]:
                future.result()
        stop.check()
        return self._best(summaries, objective)

    def _trial(
        self,
        name: str,
        request: Record,
        tuned: Mapping[str, str],
        objective: Mapping[str, str],
        log_dir: Path,
        stop: StopSignal,
        parallel: int,
    ) -> Record:
        failure = None
        try:
            if not stop.is_set:
                self._training.run_trial(request, log_dir, stop, parallel)
        except StepStoppedError:
            pass  # the trial's record says it
        except StepFailureError as error:
            failure = error.reason
        record = self._training.records.find(request["TrainingJobName"]) or {}
        summary = pick(
            *("TrainingJobName", "TrainingJobArn", "CreationTime", "TrainingStartTime", "TrainingEndTime"),
            *("TrainingJobStatus", "FailureReason"),
        )(record)
        summary |= {"TrainingJobName": request["TrainingJobName"], "TuningJobName": name}
        summary |= {"TunedHyperParameters": dict(tuned), "ObjectiveStatus": "Failed"}
        values = {item["MetricName"]: item["Value"] for item in record.get("FinalMetricDataList", ())}
        value = values.get(objective["MetricName"])
        if record.get("TrainingJobStatus") != "Completed" or failure or value is None or value != value:
            return summary
        return summary | {"ObjectiveStatus": "Succeeded", _OBJECTIVE: {**objective, "Value": value}}

    def _show(self, name: str, summaries: Mapping[int, Record], objective: Mapping[str, str]) -> None:
        with self._updating:
            done = [summaries[number] for number in sorted(summaries)]
            ranked = _ranked(done, objective)
            best = {"BestTrainingJob": ranked[0]} if ranked else {}
            self.records.update(name, TrainingJobSummaries=done, **_counters(done), **best)

    def _best(self, summaries: Mapping[int, Record], objective: Mapping[str, str]) -> Record:
        done = [summaries[number] for number in sorted(summaries)]
        ranked = _ranked(done, objective)
        if not ranked:
            reasons = {summary.get("FailureReason", "") for summary in done} - {""}
            why = next(iter(sorted(reasons)), f"no trial logged the objective {objective['MetricName']!r}")
            raise StepFailureError(f"AlgorithmError: all {len(done)} trials failed: {why}")
        rest = [summary for summary in done if summary not in ranked]
        return {"TrainingJobSummaries": [*ranked, *rest], "BestTrainingJob": ranked[0], **_counters(done)}


_CONFIG = "HyperParameterTuningJobConfig"
_OBJECTIVE = "FinalHyperParameterTuningJobObjectiveMetric"


# Where results go does not change what is searched.
_WHERE_TO = ("OutputDataConfig", "CheckpointConfig")


def search_seed(request: Mapping[str, Any]) -> int:
    """Return RandomSeed, or without one a number from the digest of what is searched."""
    seed = request[_CONFIG].get("RandomSeed")
    if seed is not None:
        return int(seed)
    definition = {key: value for key, value in _definition(request).items() if key not in _WHERE_TO}
    text = json.dumps([request[_CONFIG], definition], sort_keys=True, default=str)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


def _definition(request: Mapping[str, Any]) -> Mapping[str, Any]:
    definitions = request.get("TrainingJobDefinitions") or [request.get("TrainingJobDefinition")]
    if len(definitions) != 1 or not definitions[0]:
        raise StepFailureError("ClientError: a search over several training job definitions is not supported")
    definition: Mapping[str, Any] = definitions[0]
    return definition


def _training_request(name: str, number: int, definition: Mapping[str, Any], tuned: Mapping[str, str]) -> Record:
    digest = hashlib.sha256(f"{name}/{number}".encode()).hexdigest()[:8]
    kept = {key: definition[key] for key in _KEPT if key in definition}
    trial = f"{name}-{number + 1:03d}-{digest}"
    if "CheckpointConfig" in kept:  # each trial its own, as on SageMaker
        uri = f"{kept['CheckpointConfig']['S3Uri'].rstrip('/')}/{trial}"
        kept["CheckpointConfig"] = {**kept["CheckpointConfig"], "S3Uri": uri}
    return {
        **kept,
        "TrainingJobName": trial,
        "HyperParameters": {**(definition.get("StaticHyperParameters") or {}), **tuned},
    }


def _ranked(summaries: list[Record], objective: Mapping[str, str]) -> list[Record]:
    done = [summary for summary in summaries if summary["ObjectiveStatus"] == "Succeeded"]
    return sorted(done, key=lambda s: s[_OBJECTIVE]["Value"], reverse=objective["Type"] == "Maximize")


def _counters(summaries: list[Record]) -> Record:
    statuses = [summary.get("TrainingJobStatus") for summary in summaries]
    reached = sum(summary["ObjectiveStatus"] == "Succeeded" for summary in summaries)
    return {
        "TrainingJobStatusCounters": {
            "Completed": statuses.count("Completed"),
            "InProgress": 0,
            "RetryableError": 0,
            "NonRetryableError": statuses.count("Failed"),
            "Stopped": statuses.count("Stopped"),
        },
        "ObjectiveStatusCounters": {"Succeeded": reached, "Pending": 0, "Failed": len(summaries) - reached},
    }
