"""What is made, described, listed and deleted, and does nothing by itself: models, endpoint configurations, groups.

Reads and writes <state>/records.
"""

from collections.abc import Mapping
from typing import Any

from pipeline_definition.local.environment import arn
from pipeline_definition.local.errors import RefusedRequestError, invalid
from pipeline_definition.local.records import Operation, Record, Records, clock, page


class Catalogue:
    """All that there is of one kind, by name."""

    kind: str
    """As in the ARN: training-job."""
    prefix: str
    """As in the API's members: TrainingJob -> TrainingJobName, TrainingJobStatus."""
    hidden: tuple[str, ...] = ()
    """Members of a record that Describe does not show."""

    def __init__(self, records: Mapping[str, Records], kind: str, prefix: str) -> None:
        self.records, self.kind, self.prefix = records[kind], kind, prefix
        self._name, self._arn, self._status = (f"{prefix}{member}" for member in ("Name", "Arn", "Status"))

    def operations(self) -> dict[str, Operation]:
        """Return what answers the operations that every kind has."""
        own = {"Create": self.create, "Describe": self.describe, "Delete": self.delete}
        return {f"{verb}{self.prefix}": answer for verb, answer in own.items()} | {f"List{self.prefix}s": self.list_all}

    def create(self, request: Mapping[str, Any]) -> Record:
        return {self._arn: self.add(request)[self._arn]}

    def add(self, request: Mapping[str, Any], **more: Any) -> Record:
        """Write a new record and return it; RefusedRequestError where the name is taken."""
        name, now_s = request[self._name], clock.now_s()
        if name in self.records:
            raise self.taken(name)
        own = {self._arn: arn(self.kind, name), "CreationTime": now_s, "LastModifiedTime": now_s}
        return self.records.put(name, {**request, **own, **more})

    def taken(self, name: str) -> RefusedRequestError:
        return invalid(f'Cannot create already existing {self.kind} "{arn(self.kind, name)}"')

    def missing(self, name: str) -> RefusedRequestError:
        kind = self.kind.replace("-config", " configuration")
        return invalid(f'Could not find {kind} "{arn(self.kind, name)}"')

    def find(self, name: str) -> Record:
        """Return the record of a name or an ARN; RefusedRequestError where there is none."""
        name = name.rsplit("/", 1)[-1]
        return self.records.get(name, self.missing(name))

    def describe(self, request: Mapping[str, Any]) -> Record:
        return {name: value for name, value in self.find(request[self._name]).items() if name not in self.hidden}

    def list_all(self, request: Mapping[str, Any]) -> Record:
        return page(f"List{self.prefix}s", request, self.records.all(), self._name)

    def delete(self, request: Mapping[str, Any]) -> Record:
        self.records.delete(self.find(request[self._name])[self._name])
        return {}
