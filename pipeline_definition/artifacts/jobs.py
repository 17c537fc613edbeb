"""The jobs of an execution as SageMaker describes them: hosts, times, outputs, tuning trials, last log lines.

Reads SageMaker and CloudWatch Logs; writes nothing. Copies the fields named here, never environments or credentials.
"""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from botocore import xform_name
from botocore.exceptions import BotoCoreError, ClientError

from pipeline_definition.runs.executions import ExecutionStep
from pipeline_definition.runs.job_logs import BusyLogsError, JobLog, LogsNotAllowedError
from pipeline_definition.session import Target

LOG_TAIL_LINES: Final = 40
# Throttling passes in seconds; the client itself has tried five times before each of these.
BUSY_PAUSES_S: Final = (1.0, 2.0, 4.0, 8.0)

PROCESSING, TRAINING, TUNING = "ProcessingJob", "TrainingJob", "TuningJob"
# How Describe calls each: its noun, the time that it began, and the structure, if any, whose member has its hosts.
READ: Final = {
    PROCESSING: ("Processing", "ProcessingStartTime", "ProcessingResources", "ClusterConfig"),
    TRAINING: ("Training", "TrainingStartTime", "", "ResourceConfig"),
    TUNING: ("HyperParameterTuning", "CreationTime", "TrainingJobDefinition", "ResourceConfig"),
}


@dataclass(frozen=True)
class DescribedJob:
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
    for kind in READ:
        if arn := step.arn(kind):
            return _job(sagemaker, kind, arn.rsplit("/", 1)[-1])
    return None


def tuning(sagemaker: Any, name: str) -> dict[str, Any]:
    about = sagemaker.describe_hyper_parameter_tuning_job(HyperParameterTuningJobName=name)
    config = about["HyperParameterTuningJobConfig"]
    objective = config.get("HyperParameterTuningJobObjective", {})
    pages = sagemaker.get_paginator("list_training_jobs_for_hyper_parameter_tuning_job").paginate(
        HyperParameterTuningJobName=name, SortBy="CreationTime", SortOrder="Ascending"
    )
    trials = []
    for item in (item for page in pages for item in page["TrainingJobSummaries"]):
        job = asdict(_job(sagemaker, TRAINING, item["TrainingJobName"]))
        trial = {key: job[key] for key in ("name", "seconds", "billable_seconds", "hosts", "final_metrics")}
        trial |= {"status": item.get("TrainingJobStatus"), "hyperparameters": item.get("TunedHyperParameters", {})}
        reached = item.get("FinalHyperParameterTuningJobObjectiveMetric") or {}
        trials.append(trial | {"objective": reached.get("Value")})
    return {
        "name": name,
        "status": about.get("HyperParameterTuningJobStatus"),
        "strategy": config.get("Strategy"),
        "objective": {"metric": objective.get("MetricName"), "type": objective.get("Type", "Minimize")},
        "best_trial": about.get("BestTrainingJob", {}).get("TrainingJobName"),
        "trials": trials,
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


def _job(sagemaker: Any, kind: str, name: str) -> DescribedJob:
    noun, begun, definition, resources = READ[kind]
    about = getattr(sagemaker, xform_name(f"Describe{noun}Job"))(**{f"{noun}JobName": name})
    start, end = about.get(begun), about.get(f"{noun}EndTime")
    outputs = about.get("ProcessingOutputConfig", {}).get("Outputs", [])
    uris = {item["OutputName"]: item["S3Output"]["S3Uri"] for item in outputs if "S3Output" in item}
    return DescribedJob(
        kind=kind,
        name=name,
        status=about.get(f"{noun}JobStatus", ""),
        seconds=round((end - start).total_seconds(), 3) if start and end else None,
        billable_seconds=about.get("BillableTimeInSeconds"),
        hosts=_hosts((about.get(definition, {}) if definition else about).get(resources, {})),
        outputs={"model": about.get("OutputDataConfig", {}).get("S3OutputPath", "")} if kind == TRAINING else uris,
        final_metrics={item["MetricName"]: float(item["Value"]) for item in about.get("FinalMetricDataList") or ()},
    )


def _hosts(resources: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
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
