"""The API operations that the control plane answers itself; moto answers all others."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pipeline_definition.local.errors import not_found
from pipeline_definition.local.executions import LocalExecutions, checked_definition
from pipeline_definition.local.records import Record, Records
from pipeline_definition.local.services import Services
from pipeline_definition.local.step_runner import Kinds

Operation = Callable[[Mapping[str, Any]], Record]
SAGEMAKER, FSX = "SageMaker.", "AWSSimbaAPIService_v20180301."


def operations(services: Services, kinds: Kinds, executions: LocalExecutions) -> dict[str, Operation]:
    """Return the function that answers each X-Amz-Target."""
    registry, hosting, file_systems = kinds.registry, kinds.hosting, services.file_systems
    sagemaker: dict[str, Operation] = {
        "StartPipelineExecution": executions.start,
        "StopPipelineExecution": executions.stop,
        "RetryPipelineExecution": executions.retry,
        "DescribePipelineExecution": executions.describe,
        "ListPipelineExecutions": executions.list_executions,
        "ListPipelineExecutionSteps": executions.list_steps,
        "ListPipelineParametersForExecution": executions.list_parameters,
        "DescribePipelineDefinitionForExecution": executions.describe_definition,
        "ListTrainingJobsForHyperParameterTuningJob": kinds.tuning.list_trials,
        "CreateEndpoint": hosting.create,
        "UpdateEndpoint": hosting.update,
        "DeleteEndpoint": hosting.delete,
        "DescribeEndpoint": hosting.describe,
        "ListEndpoints": hosting.list_endpoints,
        "UpdateEndpointWeightsAndCapacities": hosting.update_weights,
        "CreateModelPackageGroup": registry.create_group,
        "DescribeModelPackageGroup": registry.describe_group,
        "ListModelPackageGroups": registry.list_groups,
        "DeleteModelPackageGroup": registry.delete_group,
        "CreateModelPackage": registry.create_package,
        "DescribeModelPackage": registry.describe_package,
        "ListModelPackages": registry.list_packages,
        "UpdateModelPackage": registry.update_package,
        "DeleteModelPackage": registry.delete_package,
    }
    for jobs in (kinds.processing, kinds.training, kinds.tuning):
        sagemaker |= {
            f"Create{jobs.prefix}": jobs.create,
            f"Describe{jobs.prefix}": jobs.describe,
            f"Stop{jobs.prefix}": jobs.stop,
            f"List{jobs.prefix}s": jobs.list_jobs,
        }
    fsx: dict[str, Operation] = {
        "CreateFileSystem": file_systems.create_file_system,
        "DescribeFileSystems": file_systems.describe_file_systems,
        "DeleteFileSystem": file_systems.delete_file_system,
        "CreateDataRepositoryAssociation": file_systems.create_association,
        "DescribeDataRepositoryAssociations": file_systems.describe_associations,
        "DeleteDataRepositoryAssociation": file_systems.delete_association,
    }
    return {SAGEMAKER + name: call for name, call in sagemaker.items()} | {
        FSX + name: call for name, call in fsx.items()
    }


def checks(services: Services) -> dict[str, Callable[[Mapping[str, Any]], None]]:
    """Return the checks of requests that moto answers: a definition that cannot run is refused at once."""

    def check(request: Mapping[str, Any]) -> None:
        location = request.get("PipelineDefinitionS3Location")
        text = request.get("PipelineDefinition")
        if location and not text:
            text = services.store.read(f"s3://{location['Bucket']}/{location['ObjectKey']}").decode()
        if text:
            checked_definition(text)

    return {SAGEMAKER + "CreatePipeline": check, SAGEMAKER + "UpdatePipeline": check}


def tag_operations(services: Services) -> dict[str, Operation]:
    """Return the tag operations; they raise NotOursError for a resource that moto keeps."""
    tags = _Tags(
        {
            "training-job": services.training_jobs,
            "processing-job": services.processing_jobs,
            "hyper-parameter-tuning-job": services.tuning_jobs,
            "endpoint": services.endpoints,
            "model-package-group": services.model_package_groups,
            "model-package": services.model_packages,
        }
    )
    return {SAGEMAKER + "ListTags": tags.show, SAGEMAKER + "AddTags": tags.add, SAGEMAKER + "DeleteTags": tags.delete}


class NotOursError(Exception):
    """The request is about something that moto keeps."""


class _Tags:
    def __init__(self, kinds: Mapping[str, Records]) -> None:
        self._kinds = kinds

    def show(self, request: Mapping[str, Any]) -> Record:
        return {"Tags": self._find(request)[2]}

    def add(self, request: Mapping[str, Any]) -> Record:
        records, name, before = self._find(request)
        tags = list({tag["Key"]: tag for tag in [*before, *request["Tags"]]}.values())
        records.update(name, Tags=tags)
        return {"Tags": tags}

    def delete(self, request: Mapping[str, Any]) -> Record:
        records, name, before = self._find(request)
        records.update(name, Tags=[tag for tag in before if tag["Key"] not in request["TagKeys"]])
        return {}

    def _find(self, request: Mapping[str, Any]) -> tuple[Records, str, list[Record]]:
        """Return where the resource's record is, its name there, and its tags."""
        arn = request["ResourceArn"]
        kind, _, name = arn.rsplit(":", 1)[-1].partition("/")
        if kind not in self._kinds:
            raise NotOursError
        name = arn if kind == "model-package" else name
        records = self._kinds[kind]
        return records, name, records.get(name, not_found(f"There is no {arn}")).get("Tags", [])
