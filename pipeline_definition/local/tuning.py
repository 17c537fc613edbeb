"""Hyperparameter tuning jobs: real trials, several at once, and the best of them."""

import contextlib
import hashlib
import json
import threading
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from pipeline_definition.jobs.request_shapes import request_shape, service_model
from pipeline_definition.local.errors import StepFailureError, StepStoppedError
from pipeline_definition.local.job_hosts import RunningJob
from pipeline_definition.local.jobs import LOG_FOLDER, Jobs
from pipeline_definition.local.records import Record, cut, page, pick
from pipeline_definition.local.search_space import trial_hyperparameters
from pipeline_definition.local.services import Services
from pipeline_definition.local.training import TrainingJobs

_CONFIG = "HyperParameterTuningJobConfig"
_OBJECTIVE = "FinalHyperParameterTuningJobObjectiveMetric"
# Where results go does not change what is searched.
_WHERE_TO = ("OutputDataConfig", "CheckpointConfig")


class TuningJobs(Jobs):
    kind, prefix = "hyper-parameter-tuning-job", "HyperParameterTuningJob"
    hidden = (LOG_FOLDER, "TrainingJobSummaries")  # the trials have an operation of their own

    def __init__(self, services: Services, training: TrainingJobs) -> None:
        super().__init__(services)
        self._training = training
        self._updating = threading.Lock()

    def list_training_jobs_for_hyper_parameter_tuning_job(self, request: Mapping[str, Any]) -> Record:
        trials = self.find(request["HyperParameterTuningJobName"])["TrainingJobSummaries"]
        if request.get("SortBy") == "FinalObjectiveMetricValue":
            trials = [trial for trial in trials if _OBJECTIVE in trial]
            trials.sort(key=lambda t: t[_OBJECTIVE]["Value"], reverse=request.get("SortOrder") == "Descending")
            shown, token = cut(request, trials)
            return {"TrainingJobSummaries": shown, **token}
        return page("ListTrainingJobsForHyperParameterTuningJob", request, trials, "TrainingJobName")

    def new_record(self, request: Mapping[str, Any]) -> Record:
        return {"Strategy": request[_CONFIG]["Strategy"], "TrainingJobSummaries": [], **_counters([])}

    def work(self, job: RunningJob) -> Record:
        """Run the trials; fail when none has reached a value of the objective."""
        definition, config = _definition(job.request), job.request[_CONFIG]
        objective = config.get("HyperParameterTuningJobObjective") or definition.get("TuningObjective")
        if not objective:
            raise StepFailureError("ClientError: HyperParameterTuningJobObjective is missing")
        ranges = config.get("ParameterRanges") or definition.get("HyperParameterRanges") or {}
        target = (config.get("TuningJobCompletionCriteria") or {}).get("TargetObjectiveMetricValue")
        trials = trial_hyperparameters(config, ranges, search_seed(job.request))
        parallel = min(int(config["ResourceLimits"]["MaxParallelTrainingJobs"]), len(trials))
        summaries: dict[int, Record] = {}

        def run(number: int) -> None:
            with self._updating:
                if target is not None and _has_reached(summaries.values(), objective, target):
                    return
            request = _training_request(job.name, number, definition, trials[number])
            summary = self._trial(job, number, request, objective, parallel)
            with self._updating:
                summaries[number] = {**summary, "TunedHyperParameters": trials[number]}
                self.records.update(job.name, **_progress(summaries, objective))

        with ThreadPoolExecutor(parallel) as pool:
            list(pool.map(run, range(len(trials))))
        job.stop.check()
        progress = _progress(summaries, objective)
        if "BestTrainingJob" not in progress:
            reasons = {summary.get("FailureReason", "") for summary in summaries.values()} - {""}
            why = next(iter(sorted(reasons)), f"no trial logged the objective {objective['MetricName']!r}")
            raise StepFailureError(f"AlgorithmError: all {len(trials)} trials failed: {why}")
        return progress

    def _trial(self, job: RunningJob, number: int, request: Record, objective: Record, parallel: int) -> Record:
        if not job.stop.is_set:
            with contextlib.suppress(StepStoppedError, StepFailureError):  # the trial's record says it
                self._training.run(request, job.log_dir / f"trial-{number + 1:03d}", job.stop, parallel)
        record = self._training.records.find(request["TrainingJobName"]) or {}
        shape: Any = service_model().shape_for("HyperParameterTrainingJobSummary")
        summary = pick(record, shape.members)
        summary |= {"TrainingJobName": request["TrainingJobName"], "TuningJobName": job.name}
        summary |= {"ObjectiveStatus": "Failed"}
        values = {item["MetricName"]: item["Value"] for item in record.get("FinalMetricDataList", ())}
        value = values.get(objective["MetricName"])
        if record.get("TrainingJobStatus") != "Completed" or value is None or value != value:
            return summary
        return summary | {"ObjectiveStatus": "Succeeded", _OBJECTIVE: {**objective, "Value": value}}


def search_seed(request: Mapping[str, Any]) -> int:
    """Return RandomSeed, or without one a number from the digest of what is searched."""
    seed = request[_CONFIG].get("RandomSeed")
    if seed is not None:
        return int(seed)
    definition = {key: value for key, value in _definition(request).items() if key not in _WHERE_TO}
    text = json.dumps([request[_CONFIG], definition], sort_keys=True, default=str)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


def _definition(request: Mapping[str, Any]) -> Mapping[str, Any]:
    definition: Mapping[str, Any] | None = request.get("TrainingJobDefinition")
    definition = definition or next(iter(request.get("TrainingJobDefinitions") or ()), None)
    if definition is None:
        raise StepFailureError("ClientError: TrainingJobDefinition is missing")
    return definition


def _training_request(name: str, number: int, definition: Mapping[str, Any], tuned: Mapping[str, str]) -> Record:
    digest = hashlib.sha256(f"{name}/{number}".encode()).hexdigest()[:8]
    kept = pick(dict(definition), request_shape("CreateTrainingJob").members)
    if hosts := definition.get("HyperParameterTuningResourceConfig"):  # of several kinds, the first has capacity here
        hosts = {**hosts, **(hosts.get("InstanceConfigs") or [{}])[0]}
        kept["ResourceConfig"] = pick(hosts, ("InstanceType", "InstanceCount", "VolumeSizeInGB", "VolumeKmsKeyId"))
    trial = f"{name}-{number + 1:03d}-{digest}"
    if "CheckpointConfig" in kept:  # each trial its own, as on SageMaker
        uri = f"{kept['CheckpointConfig']['S3Uri'].rstrip('/')}/{trial}"
        kept["CheckpointConfig"] = {**kept["CheckpointConfig"], "S3Uri": uri}
    hyperparameters = {**(definition.get("StaticHyperParameters") or {}), **tuned}
    return {**kept, "TrainingJobName": trial, "HyperParameters": hyperparameters}


def _progress(summaries: Mapping[int, Record], objective: Mapping[str, str]) -> Record:
    """Return what a search's record says of its trials so far, the best ones first."""
    done = [summaries[number] for number in sorted(summaries)]
    ranked = [summary for summary in done if summary["ObjectiveStatus"] == "Succeeded"]
    ranked.sort(key=lambda summary: summary[_OBJECTIVE]["Value"], reverse=objective["Type"] == "Maximize")
    best = {"BestTrainingJob": ranked[0]} if ranked else {}
    rest = [summary for summary in done if summary not in ranked]
    return {"TrainingJobSummaries": [*ranked, *rest], **best, **_counters(done)}


def _has_reached(summaries: Iterable[Record], objective: Mapping[str, str], target: float) -> bool:
    values = [summary[_OBJECTIVE]["Value"] for summary in summaries if _OBJECTIVE in summary]
    return any(value >= target if objective["Type"] == "Maximize" else value <= target for value in values)


def _counters(summaries: list[Record]) -> Record:
    count = [summary.get("TrainingJobStatus") for summary in summaries].count
    reached = sum(summary["ObjectiveStatus"] == "Succeeded" for summary in summaries)
    ended = {"Completed": count("Completed"), "NonRetryableError": count("Failed"), "Stopped": count("Stopped")}
    return {
        "TrainingJobStatusCounters": {"InProgress": 0, "RetryableError": 0, **ended},
        "ObjectiveStatusCounters": {"Succeeded": reached, "Pending": 0, "Failed": len(summaries) - reached},
    }
