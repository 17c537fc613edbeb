"""The API operations that the control plane answers itself: SageMaker's, and some of its neighbours'."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from botocore import xform_name

from pipeline_definition.jobs.request_shapes import service_model
from pipeline_definition.local.errors import not_found
from pipeline_definition.local.executions import LocalExecutions
from pipeline_definition.local.promotion import Promotion
from pipeline_definition.local.records import Operation, Record, Records, page
from pipeline_definition.local.search import search
from pipeline_definition.local.services import Services
from pipeline_definition.local.settings import SET_CLOUD
from pipeline_definition.local.step_runner import Kinds


def operations(
    services: Services, kinds: Kinds, executions: LocalExecutions, promotion: Promotion
) -> dict[str, Operation]:
    """Return what answers each X-Amz-Target: a method of the name by which boto3 calls the operation.

    One that raises NotOursError leaves the request to moto.
    """
    catalogues = [
        *(kinds.processing, kinds.training, kinds.tuning, kinds.models, kinds.endpoint_configs, kinds.registry.groups),
        *(kinds.hosting, executions.pipelines),
    ]
    sources = {catalogue.prefix: catalogue.records.all for catalogue in catalogues}
    sources |= {"ModelPackage": services.records["model-package"].all, "PipelineExecution": executions.descriptions}
    tags = Tags(services.records)
    answering = {
        "sagemaker": (executions, executions.pipelines, kinds.tuning, kinds.hosting, kinds.registry, tags),
        "fsx": (services.file_systems,),
        "stepfunctions": (promotion,),
    }
    answered: dict[str, Operation] = {SET_CLOUD: services.set_cloud, "SageMaker.Search": partial(search, sources)}
    for service, parts in answering.items():
        model = service_model(service)
        for name in model.operation_names:
            for part in parts:
                if hasattr(part, xform_name(name)):
                    answered[f"{model.metadata['targetPrefix']}.{name}"] = getattr(part, xform_name(name))
    for catalogue in catalogues:
        answered |= {f"SageMaker.{name}": answer for name, answer in catalogue.operations().items()}
    return {**answered, "SageMaker.DeletePipeline": executions.delete_pipeline}


class Tags:
    """The tags of what has a record here; moto keeps those of everything else."""

    def __init__(self, records: Mapping[str, Records]) -> None:
        self._records = records

    def list_tags(self, request: Mapping[str, Any]) -> Record:
        return page("ListTags", request, self._find(request)[2], "Key")

    def add_tags(self, request: Mapping[str, Any]) -> Record:
        records, name, before = self._find(request)
        tags = list({tag["Key"]: tag for tag in [*before, *request["Tags"]]}.values())
        records.update(name, Tags=tags)
        return {"Tags": tags}

    def delete_tags(self, request: Mapping[str, Any]) -> Record:
        records, name, before = self._find(request)
        records.update(name, Tags=[tag for tag in before if tag["Key"] not in request["TagKeys"]])
        return {}

    def _find(self, request: Mapping[str, Any]) -> tuple[Records, str, list[Record]]:
        """Return where the resource's record is, its name there, and its tags."""
        arn = request["ResourceArn"]
        kind, _, name = arn.rsplit(":", 1)[-1].partition("/")
        if kind not in self._records:
            raise not_found(f"There is no {arn}")
        name = arn if kind == "model-package" else name
        records = self._records[kind]
        return records, name, records.get(name, not_found(f"There is no {arn}")).get("Tags", [])
