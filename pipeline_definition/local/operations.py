"""The API operations that the control plane answers itself; moto answers all others."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pipeline_definition.local.errors import RefusedRequestError
from pipeline_definition.local.executions import LocalExecutions, checked_definition
from pipeline_definition.local.file_system import FileSystems
from pipeline_definition.local.records import Record, Records
from pipeline_definition.local.services import Services
from pipeline_definition.local.step_runner import Kinds

Operation = Callable[[Mapping[str, Any]], Record]
SAGEMAKER, FSX = "SageMaker.", "AWSSimbaAPIService_v20180301."


def operations(services: Services, kinds: Kinds, executions: LocalExecutions) -> dict[str, Operation]:
    """Return what answers each X-Amz-Target."""
    own = {
        **_executions(executions),
        **_jobs(kinds),
        **_endpoints(kinds),
        **_registry(kinds),
    }
    return {SAGEMAKER + name: operation for name, operation in own.items()} | {
        FSX + name: operation for name, operation in _file_systems(services.file_systems).items()
    }


def checks(services: Services) -> dict[str, Callable[[Mapping[str, Any]], None]]:
    """Return what looks at a request before moto gets it: a definition that cannot run is refused at once."""

    def check(request: Mapping[str, Any]) -> None:
        location = request.get("PipelineDefinitionS3Location")
        text = request.get("PipelineDefinition")
        if location and not text:
            text = services.store.read(f"s3://{location['Bucket']}/{location['ObjectKey']}").decode()
        if text:
            checked_definition(text)

    return {SAGEMAKER + "CreatePipeline": check, SAGEMAKER + "UpdatePipeline": check}


def tag_operations(services: Services) -> dict[str, Operation]:
    """Return the tag operations; they answer None for what is moto's."""
    kinds = {
        "training-job": services.training_jobs,
        "processing-job": services.processing_jobs,
        "hyper-parameter-tuning-job": services.tuning_jobs,
        "endpoint": services.endpoints,
        "model-package-group": services.model_package_groups,
        "model-package": services.model_packages,
    }
    tags = _Tags(kinds)
    return {SAGEMAKER + "ListTags": tags.list, SAGEMAKER + "AddTags": tags.add, SAGEMAKER + "DeleteTags": tags.delete}


class NotOursError(Exception):
    """The request is about something that moto keeps."""


class _Tags:
    def __init__(self, kinds: Mapping[str, Records]) -> None:
        self._kinds = kinds

    def list(self, request: Mapping[str, Any]) -> Record:
        records, name = self._find(request["ResourceArn"])
        return {"Tags": (records.find(name) or {}).get("Tags", [])}

    def add(self, request: Mapping[str, Any]) -> Record:
        records, name = self._find(request["ResourceArn"])
        before = {tag["Key"]: tag["Value"] for tag in (records.find(name) or {}).get("Tags", [])}
        after = before | {tag["Key"]: tag["Value"] for tag in request["Tags"]}
        tags = [{"Key": key, "Value": value} for key, value in after.items()]
        records.update(name, Tags=tags)
        return {"Tags": tags}

    def delete(self, request: Mapping[str, Any]) -> Record:
        records, name = self._find(request["ResourceArn"])
        before = (records.find(name) or {}).get("Tags", [])
        records.update(name, Tags=[tag for tag in before if tag["Key"] not in request["TagKeys"]])
        return {}

    def _find(self, arn: str) -> tuple[Records, str]:
        kind, _, name = arn.rsplit(":", 1)[-1].partition("/")
        if kind not in self._kinds:
            raise NotOursError
        name = arn if kind == "model-package" else name
        if name not in self._kinds[kind]:
            raise RefusedRequestError("ResourceNotFound", f"There is no {arn}")
        return self._kinds[kind], name


def _executions(executions: LocalExecutions) -> dict[str, Operation]:
    return {
        "StartPipelineExecution": executions.start,
        "StopPipelineExecution": executions.stop,
        "RetryPipelineExecution": executions.retry,
        "DescribePipelineExecution": executions.describe,
        "ListPipelineExecutions": executions.list_executions,
        "ListPipelineExecutionSteps": executions.list_steps,
        "ListPipelineParametersForExecution": executions.list_parameters,
        "DescribePipelineDefinitionForExecution": executions.describe_definition,
    }


def _jobs(kinds: Kinds) -> dict[str, Operation]:
    table: dict[str, Operation] = {}
    for jobs in (kinds.processing, kinds.training, kinds.tuning):
        table |= {
            f"Create{jobs.prefix}": jobs.create,
            f"Describe{jobs.prefix}": jobs.describe,
            f"Stop{jobs.prefix}": jobs.stop,
            f"List{jobs.prefix}s": jobs.list_jobs,
        }
    return table | {"ListTrainingJobsForHyperParameterTuningJob": kinds.tuning.list_trials}


def _endpoints(kinds: Kinds) -> dict[str, Operation]:
    return {
        "CreateEndpoint": kinds.hosting.create,
        "UpdateEndpoint": kinds.hosting.update,
        "DeleteEndpoint": kinds.hosting.delete,
        "DescribeEndpoint": kinds.hosting.describe,
        "ListEndpoints": kinds.hosting.list_endpoints,
        "UpdateEndpointWeightsAndCapacities": kinds.hosting.update_weights,
    }


def _registry(kinds: Kinds) -> dict[str, Operation]:
    return {
        "CreateModelPackageGroup": kinds.registry.create_group,
        "DescribeModelPackageGroup": kinds.registry.describe_group,
        "ListModelPackageGroups": kinds.registry.list_groups,
        "DeleteModelPackageGroup": kinds.registry.delete_group,
        "CreateModelPackage": kinds.registry.create_package,
        "DescribeModelPackage": kinds.registry.describe_package,
        "ListModelPackages": kinds.registry.list_packages,
        "UpdateModelPackage": kinds.registry.update_package,
        "DeleteModelPackage": kinds.registry.delete_package,
    }


def _file_systems(file_systems: FileSystems) -> dict[str, Operation]:
    return {
        "CreateFileSystem": file_systems.create_file_system,
        "DescribeFileSystems": file_systems.describe_file_systems,
        "DeleteFileSystem": file_systems.delete_file_system,
        "CreateDataRepositoryAssociation": file_systems.create_association,
        "DescribeDataRepositoryAssociations": file_systems.describe_associations,
        "DeleteDataRepositoryAssociation": file_systems.delete_association,
    }
