"""Pipelines and their versions: each definition that differs from the one before is a version.

Reads and writes <state>/records/pipelines.
"""

import threading
from collections.abc import Mapping
from typing import Any

from pipeline_definition.local.catalogue import Catalogue
from pipeline_definition.local.definition import parse_definition
from pipeline_definition.local.environment import arn
from pipeline_definition.local.errors import RefusedRequestError, invalid, not_found
from pipeline_definition.local.records import Record, clock, page
from pipeline_definition.local.services import Services

_TOKEN, _TEXT, _PLACE = "ClientRequestToken", "PipelineDefinition", "PipelineDefinitionS3Location"
_VERSIONS = "LocalVersions"


class Pipelines(Catalogue):
    def __init__(self, services: Services) -> None:
        super().__init__(services.records, "pipeline", "Pipeline")
        self._services = services
        self._changing = threading.Lock()

    def missing(self, name: str) -> RefusedRequestError:
        return not_found(f"Pipeline {arn('pipeline', name)} does not exist.")

    def create(self, request: Mapping[str, Any]) -> Record:
        """Answer CreatePipeline; the same request once more has the same answer."""
        about = self._checked(request, [])
        if not about.get(_VERSIONS):
            raise invalid(f"{_TEXT} is missing")
        with self._changing:
            before = self.records.find(request["PipelineName"])
            kept = before and (before.get(_TOKEN), before[_VERSIONS][0][_TEXT])
            is_same = kept == (request.get(_TOKEN), about[_VERSIONS][0][_TEXT])
            record = before if before and is_same else self.add(about, PipelineStatus="Active")
        return {"PipelineArn": record["PipelineArn"]}

    def update_pipeline(self, request: Mapping[str, Any]) -> Record:
        """Answer UpdatePipeline: only what is given changes."""
        with self._changing:
            record = self.find(request["PipelineName"])
            changes = self._checked(request, record[_VERSIONS]) | {"PipelineName": record["PipelineName"]}
            record = self.records.update(record["PipelineName"], **changes, LastModifiedTime=clock.now_s())
        return {"PipelineArn": record["PipelineArn"], "PipelineVersionId": len(record[_VERSIONS])}

    def describe(self, request: Mapping[str, Any]) -> Record:
        """Answer DescribePipeline, by name or ARN, of one version or the newest."""
        record = self.find(request["PipelineName"])
        version = self.version(record, request.get("PipelineVersionId"))
        return {name: value for name, value in record.items() if name not in (_VERSIONS, _TOKEN)} | {
            _TEXT: version[_TEXT],
            "PipelineVersionId": version["PipelineVersionId"],
        }

    def list_pipeline_versions(self, request: Mapping[str, Any]) -> Record:
        record = self.find(request["PipelineName"])
        versions = [{**version, "PipelineArn": record["PipelineArn"]} for version in record[_VERSIONS]]
        return page("ListPipelineVersions", request, versions, "PipelineVersionId")

    def delete(self, request: Mapping[str, Any]) -> Record:
        return super().delete(request) | {"PipelineArn": arn("pipeline", request["PipelineName"].rsplit("/", 1)[-1])}

    def version(self, record: Record, number: int | None = None) -> Record:
        """Return a version of a pipeline, the newest unless a number is given; RefusedRequestError where none is."""
        versions = record[_VERSIONS]
        if number is not None and not 1 <= number <= len(versions):
            raise not_found(f"Pipeline {record['PipelineArn']} has no version {number}")
        found: Record = versions[(number or len(versions)) - 1]
        return found

    def _checked(self, request: Mapping[str, Any], versions: list[Record]) -> Record:
        """Return what a request says of a pipeline, its definition as one more version once it is known to run."""
        about = {name: value for name, value in request.items() if name not in (_TEXT, _PLACE)}
        place, text = request.get(_PLACE), request.get(_TEXT)
        if place and text:
            raise invalid(f"Give either {_TEXT} or {_PLACE}")
        if place:
            text = self._services.store.read(f"s3://{place['Bucket']}/{place['ObjectKey']}").decode()
        if not text:
            return about
        parse_definition(text, self._services.settings.refuse_image)
        if versions and text == versions[-1][_TEXT]:
            return about
        newest = {"PipelineVersionId": len(versions) + 1, "CreationTime": clock.now_s(), _TEXT: text}
        return {**about, _VERSIONS: [*versions, newest]}
