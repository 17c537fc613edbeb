"""The jobs of an execution as SageMaker describes them: hosts, times, outputs, tuning trials, last log lines.

Reads SageMaker's Describe and List calls and CloudWatch Logs; writes nothing. Only the fields named here
are copied, never environments or credentials.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from botocore.exceptions import BotoCoreError, ClientError

from pipeline_definition.runs.executions import ExecutionStep
from pipeline_definition.runs.job_logs import BusyLogsError, JobLog, LogsNotAllowedError
from pipeline_definition.session import Target

LOG_TAIL_LINES: Final = 40
# Throttling passes in seconds; the client itself has tried five times before each of these.
BUSY_PAUSES_S: Final = (1.0, 2.0, 4.0, 8.0)

PROCESSING, TRAINING, TUNING = "ProcessingJob", "TrainingJob", "TuningJob"


@dataclass(frozen=True)
class DescribedJob:
    """One SageMaker job."""

    kind: str
    name: str
    status: str = ""
    seconds: float | None = None
    """From the start of the job's container to its end."""
    billable_seconds: float | None = None
    """For each host, as SageMaker bills it: less than `seconds` on spot."""
    hosts: tuple[Mapping[str, Any], ...] = ()
    """`{"instance_type": ..., "instance_count": ...}` for each group of equal hosts, `is_reserved` where by a plan."""
    outputs: Mapping[str, str] = field(default_factory=dict)
    """Name of an output to its prefix; a training job's is named `model`."""
    final_metrics: Mapping[str, float] = field(default_factory=dict)


def describe(sagemaker: Any, step: ExecutionStep) -> DescribedJob | None:
    """Return the job that a step ran, or None for a step that runs none."""
    for kind, read in {PROCESSING: _processing_job, TRAINING: _training_job, TUNING: _tuning_job}.items():
        if arn := step.arn(kind):
            return read(sagemaker, arn.rsplit("/", 1)[-1])
    return None


def tuning(sagemaker: Any, name: str) -> dict[str, Any]:
    """Return a tuning job's objective and trials."""
    about = sagemaker.describe_hyper_parameter_tuning_job(HyperParameterTuningJobName=name)
    config = about["HyperParameterTuningJobConfig"]
    objective = config.get("HyperParameterTuningJobObjective", {})
    trials = sagemaker.get_paginator("list_training_jobs_for_hyper_parameter_tuning_job").paginate(
        HyperParameterTuningJobName=name, SortBy="CreationTime", SortOrder="Ascending"
    )
    return {
        "name": name,
        "status": about.get("HyperParameterTuningJobStatus"),
        "strategy": config.get("Strategy"),
        "objective": {"metric": objective.get("MetricName"), "type": objective.get("Type", "Minimize")},
        "best_trial": about.get("BestTrainingJob", {}).get("TrainingJobName"),
        "trials": [_trial(sagemaker, item) for page in trials for item in page["TrainingJobSummaries"]],
    }


def model_package(about: Mapping[str, Any]) -> dict[str, Any]:
    """Return what an approver wants to see of DescribeModelPackage's answer."""
    statistics = about.get("ModelMetrics", {}).get("ModelQuality", {}).get("Statistics", {})
    containers = about.get("InferenceSpecification", {}).get("Containers", [])
    created = about.get("CreationTime")
    return {
        "arn": about["ModelPackageArn"],
        "group": about.get("ModelPackageGroupName"),
        "version": about.get("ModelPackageVersion"),
        "approval_status": about.get("ModelApprovalStatus"),
        "approval_description": about.get("ApprovalDescription"),
        "description": about.get("ModelPackageDescription"),
        "created": created.isoformat() if created else None,
        "metadata": dict(about.get("CustomerMetadataProperties") or {}),
        "metrics_uri": statistics.get("S3Uri"),
        "images": [container.get("Image") for container in containers],
        "model_data": [container.get("ModelDataUrl") for container in containers],
    }


def log_tail(target: Target, step: ExecutionStep) -> list[str]:
    """Return the last lines of a step's log, or the reason why they cannot be read."""
    log = JobLog(target, step)
    for pause_s in BUSY_PAUSES_S:
        try:
            return log.tail(LOG_TAIL_LINES)
        except BusyLogsError:
            time.sleep(pause_s)
        except LogsNotAllowedError as error:
            return [f"warning: {error}"]
        except (ClientError, BotoCoreError) as error:
            # A page without the last lines is better than none.
            return [f"warning: the log cannot be read: {' '.join(str(error).split())}"]
    return ["warning: the log cannot be read: CloudWatch Logs is busy; collect the run again in a minute"]


def _processing_job(sagemaker: Any, name: str) -> DescribedJob:
    about = sagemaker.describe_processing_job(ProcessingJobName=name)
    outputs = about.get("ProcessingOutputConfig", {}).get("Outputs", [])
    return DescribedJob(
        kind=PROCESSING,
        name=name,
        status=about.get("ProcessingJobStatus", ""),
        seconds=_seconds(about.get("ProcessingStartTime"), about.get("ProcessingEndTime")),
        hosts=_hosts(about.get("ProcessingResources", {}).get("ClusterConfig", {})),
        outputs={item["OutputName"]: item["S3Output"]["S3Uri"] for item in outputs if "S3Output" in item},
    )


def _training_job(sagemaker: Any, name: str) -> DescribedJob:
    about = sagemaker.describe_training_job(TrainingJobName=name)
    metrics = about.get("FinalMetricDataList") or []
    return DescribedJob(
        kind=TRAINING,
        name=name,
        status=about.get("TrainingJobStatus", ""),
        seconds=_seconds(about.get("TrainingStartTime"), about.get("TrainingEndTime")),
        billable_seconds=about.get("BillableTimeInSeconds"),
        hosts=_hosts(about.get("ResourceConfig", {})),
        outputs={"model": about.get("OutputDataConfig", {}).get("S3OutputPath", "")},
        final_metrics={item["MetricName"]: float(item["Value"]) for item in metrics},
    )


def _tuning_job(sagemaker: Any, name: str) -> DescribedJob:
    about = sagemaker.describe_hyper_parameter_tuning_job(HyperParameterTuningJobName=name)
    return DescribedJob(
        kind=TUNING,
        name=name,
        status=about.get("HyperParameterTuningJobStatus", ""),
        seconds=_seconds(about.get("CreationTime"), about.get("HyperParameterTuningEndTime")),
        hosts=_hosts(about.get("TrainingJobDefinition", {}).get("ResourceConfig", {})),
    )


def _trial(sagemaker: Any, item: Mapping[str, Any]) -> dict[str, Any]:
    job = _training_job(sagemaker, item["TrainingJobName"])
    objective = item.get("FinalHyperParameterTuningJobObjectiveMetric") or {}
    return {
        "name": job.name,
        "status": item.get("TrainingJobStatus"),
        "hyperparameters": dict(item.get("TunedHyperParameters", {})),
        "objective": objective.get("Value"),
        "seconds": job.seconds,
        "billable_seconds": job.billable_seconds,
        "hosts": list(job.hosts),
        "final_metrics": dict(job.final_metrics),
    }


def _hosts(resources: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    """Return the groups of equal hosts: one, or those of a heterogeneous cluster."""
    chosen = {key.removeprefix("Selected"): value for key, value in resources.items() if key.startswith("Selected")}
    groups = resources.get("InstanceGroups") or [{**resources, **chosen}]
    plans = {entry["InstanceType"]: entry.get("TrainingPlanArns") for entry in resources.get("InstancePreferences", ())}
    return tuple(
        {
            "instance_type": group["InstanceType"],
            "instance_count": int(group.get("InstanceCount", 1)),
            **({"is_reserved": True} if group.get("TrainingPlanArn") or plans.get(group["InstanceType"]) else {}),
        }
        for group in groups
        if "InstanceType" in group
    )


def _seconds(start: datetime | None, end: datetime | None) -> float | None:
    return round((end - start).total_seconds(), 3) if start and end else None
