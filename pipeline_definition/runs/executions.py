"""Pipelines and their executions, on AWS or on the local control plane: upsert, start, describe, stop, retry, sum up.

Reads and writes SageMaker through one boto3 client; the SageMaker SDK is not needed for any of it. A local run's folder
gets summary.json, its outcome for programs, and runs/latest points at the newest one.
"""

import difflib
import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError, ConnectionError, HTTPClientError

from params import layout
from params.files import whole_file
from params.s3 import error_code, unless_missing
from pipeline_definition.checks.findings import with_fix
from pipeline_definition.errors import UsageError
from pipeline_definition.session import Target

SUMMARY_FILE = "summary.json"
SUMMARY_METRICS = (
    *(layout.FID, layout.FID_UNTRAINED),
    *(layout.CLIP_SCORE, layout.CLIP_SCORE_UNTRAINED, layout.CLIP_SCORE_REAL),
)
# Above this the API wants the definition in S3 rather than in the request.
INLINE_DEFINITION_BYTES = 100_000
BUSY = ("Throttl", "TooManyRequests", "RequestLimitExceeded", "LimitExceeded", "ServiceUnavailable", "InternalFail")


def is_busy(error: Exception) -> bool:
    """Whether a service answers later: it is throttled, unavailable, or out of reach for a moment."""
    return isinstance(error, (ConnectionError, HTTPClientError)) or error_code(error).startswith(BUSY)


@dataclass(frozen=True)
class ExecutionStep:
    name: str
    status: str
    start: datetime | None = None
    end: datetime | None = None
    failure_reason: str = ""
    cached: bool = False
    attempts: int = 1
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def seconds(self) -> float | None:
        """How long the step ran, or has run up to now; None before it started."""
        if self.start is None:
            return None
        end = self.end or datetime.now(self.start.tzinfo)
        return round((end - self.start).total_seconds(), 3)

    def arn(self, kind: str) -> str | None:
        """Return the ARN of what the step made: kind is a key of its metadata, such as RegisterModel."""
        value: str | None = self.metadata.get(kind, {}).get("Arn")
        return value


@dataclass(frozen=True)
class Execution:
    arn: str
    status: str
    failure_reason: str
    steps: tuple[ExecutionStep, ...]
    problem: str = ""
    """Why this is how it was a moment ago, and not how it stands."""

    @property
    def id(self) -> str:
        """Last part of the ARN: also the name of a local run's folder."""
        return self.arn.rsplit("/", 1)[-1]

    @property
    def is_finished(self) -> bool:
        return self.status in layout.ENDED_STATUSES

    def step(self, name: str) -> ExecutionStep | None:
        return next((step for step in self.steps if step.name == name), None)

    def made(self, kind: str) -> str | None:
        """Return the ARN that a finished step made: kind is RegisterModel or Endpoint."""
        arns = (step.arn(kind) for step in self.steps if step.status == "Succeeded")
        return next((arn for arn in arns if arn), None)


class Executions:
    def __init__(self, target: Target) -> None:
        self._target = target
        self._sagemaker = target.client("sagemaker")

    def upsert(
        self, name: str, definition: str, role_arn: str, bucket: str, tags: Mapping[str, str] | None = None
    ) -> str:
        """Create the pipeline or update it, with tags; return its ARN."""
        own = [{"Key": key, "Value": value} for key, value in (tags or {}).items()]
        request: dict[str, Any] = {"PipelineName": name, "RoleArn": role_arn, "PipelineDefinition": definition}
        if len(definition.encode()) > INLINE_DEFINITION_BYTES:
            place = {"Bucket": bucket, "ObjectKey": f"definitions/{name}.json"}
            body = request.pop("PipelineDefinition").encode()
            self._target.client("s3").put_object(Bucket=bucket, Key=place["ObjectKey"], Body=body)
            request["PipelineDefinitionS3Location"] = place
        answer = unless_missing(self._sagemaker.update_pipeline, **request)
        if answer and own:
            self._sagemaker.add_tags(ResourceArn=answer["PipelineArn"], Tags=own)
        tagged = {"Tags": own} if own else {}
        answer = answer or self._sagemaker.create_pipeline(**request, **tagged, ClientRequestToken=_token())
        return str(answer["PipelineArn"])

    def current_definition(self, name: str) -> dict[str, Any]:
        """Return the definition that the next execution will run."""
        answer = unless_missing(self._sagemaker.describe_pipeline, PipelineName=name)
        if answer is None:
            raise UsageError(f"there is no pipeline {name} yet; `sd-pipeline upsert` makes it")
        return dict(json.loads(answer["PipelineDefinition"]))

    def start(self, name: str, parameters: Mapping[str, str]) -> str:
        values = [{"Name": key, "Value": value} for key, value in parameters.items()]
        response = self._sagemaker.start_pipeline_execution(PipelineName=name, PipelineParameters=values)
        return str(response["PipelineExecutionArn"])

    def retry(self, arn: str) -> None:
        """Resume an execution that failed or was stopped: finished steps are not run again."""
        self._sagemaker.retry_pipeline_execution(PipelineExecutionArn=arn, ClientRequestToken=_token())

    def stop(self, arn: str) -> None:
        self._sagemaker.stop_pipeline_execution(PipelineExecutionArn=arn, ClientRequestToken=_token())

    def describe(self, arn: str, known: Execution | None = None) -> Execution:
        """Return an execution as it stands; where SageMaker is busy, as it was `known` a moment ago, and why."""
        try:
            about = self._sagemaker.describe_pipeline_execution(PipelineExecutionArn=arn)
            listed = self._sagemaker.get_paginator("list_pipeline_execution_steps")
            pages = listed.paginate(PipelineExecutionArn=arn, SortOrder="Ascending")
            steps = tuple(_step(item) for page in pages for item in page["PipelineExecutionSteps"])
        except (ClientError, ConnectionError, HTTPClientError) as error:
            if known is None or not is_busy(error):
                raise
            return replace(known, problem=f"SageMaker does not answer now, and is asked again: {error}")
        return Execution(arn, about["PipelineExecutionStatus"], with_fix(about.get("FailureReason", "")), steps)

    def definition(self, arn: str) -> dict[str, Any]:
        response = self._sagemaker.describe_pipeline_definition_for_execution(PipelineExecutionArn=arn)
        return dict(json.loads(response["PipelineDefinition"]))

    def parameters(self, arn: str) -> dict[str, str]:
        """Return the parameters that an execution was started with: those that were changed, or all of them."""
        response = self._sagemaker.list_pipeline_parameters_for_execution(PipelineExecutionArn=arn)
        return {item["Name"]: item["Value"] for item in response.get("PipelineParameters") or []}

    def list(self, pipeline_name: str) -> list[dict[str, Any]]:
        """Return the summaries of a pipeline's executions, newest first."""
        pages = self._sagemaker.get_paginator("list_pipeline_executions").paginate(
            PipelineName=pipeline_name, SortBy="CreationTime", SortOrder="Descending"
        )
        return [item for page in pages for item in page["PipelineExecutionSummaries"]]

    def find(self, pipeline_name: str, execution: str) -> str:
        """Return the ARN of an execution given as an ARN, an id, or `latest`."""
        if execution.startswith("arn:"):
            return execution
        arns = [str(item["PipelineExecutionArn"]) for item in self.list(pipeline_name)]
        ids = {arn.rsplit("/", 1)[-1]: arn for arn in arns}
        if execution in ids or (execution == "latest" and arns):
            return ids.get(execution, arns[0])
        close = difflib.get_close_matches(execution, ids, n=1)
        hint = f"; did you mean {close[0]}?" if close else "; `sd-pipeline list` shows them all"
        raise UsageError(f"pipeline {pipeline_name} has no execution {execution!r}{hint}")


def _step(item: Mapping[str, Any]) -> ExecutionStep:
    return ExecutionStep(
        name=item["StepName"],
        status=item["StepStatus"],
        start=item.get("StartTime"),
        end=item.get("EndTime"),
        failure_reason=with_fix(item.get("FailureReason", "")),
        cached="CacheHitResult" in item,
        attempts=item.get("AttemptCount", 1) or 1,
        metadata=item.get("Metadata", {}),
    )


def _token() -> str:
    """Return a new request token: one action of a person has one, and what the client sends again the same."""
    return uuid.uuid4().hex


def summarise(execution: Execution, metrics: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the summary; `metrics` is metrics.json, or None where Evaluate never ended."""
    values = (metrics or {}).get("metrics", {})
    endpoint_arn = execution.made("Endpoint")
    return {
        "execution_arn": execution.arn,
        "status": execution.status,
        "failure_reason": execution.failure_reason,
        "steps": {
            step.name: {
                "status": step.status,
                "seconds": step.seconds,
                "cached": step.cached,
                **({"failure_reason": step.failure_reason} if step.failure_reason else {}),
            }
            for step in execution.steps
        },
        "metrics": {name: values.get(name, {}).get("value") for name in SUMMARY_METRICS},
        "warnings": list((metrics or {}).get(layout.WARNINGS, ())),
        "model_package_arn": execution.made("RegisterModel"),
        "endpoint_name": endpoint_arn.rsplit("/", 1)[-1] if endpoint_arn else None,
    }


def point_latest_at(run_dir: Path) -> None:
    """Make runs/latest a link to this run; replaced in one step, so that it always leads somewhere."""
    with whole_file(run_dir.parent / "latest") as partial:
        partial.symlink_to(run_dir.name)
