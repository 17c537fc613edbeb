"""Records of jobs, endpoints, model packages and file systems: documents of the shape that Describe returns.

Reads and writes <state>/records/<kind>/<name>.json. Times are seconds since 1970, as the API's JSON carries them.
"""

import contextlib
import json
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from params.files import write_json
from pipeline_definition.jobs.request_shapes import service_model
from pipeline_definition.local.errors import RefusedRequestError, invalid

Record = dict[str, Any]
Operation = Callable[[Mapping[str, Any]], Record]
"""What answers a request of the API."""
_PAGE = 100
_TIMES = {"Created": "CreationTime", "CreationTime": "CreationTime", "LastModifiedTime": "LastModifiedTime"}
_log = logging.getLogger(__name__)


class Clock(threading.local):
    """The time in this thread: while a journal is replayed, that of each request."""

    time_s: float | None = None

    def now_s(self) -> float:
        """Return the pinned time, else now."""
        return time.time() if self.time_s is None else self.time_s


clock = Clock()


class Records:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.RLock()
        self._records: dict[str, Record] = {}
        for path in sorted(folder.glob("*.json")):
            with setting_aside(path):
                record = json.loads(path.read_text(encoding="utf-8"))
                self._records[record["name"]] = dict(record["record"])

    def __contains__(self, name: str) -> bool:
        return name in self._records

    def get(self, name: str, otherwise: RefusedRequestError) -> Record:
        """Return a copy of a record; raise `otherwise` when it does not exist."""
        record = self.find(name)
        if record is None:
            raise otherwise
        return record

    def find(self, name: str) -> Record | None:
        with self._lock:
            return dict(self._records[name]) if name in self._records else None

    def all(self) -> list[Record]:
        with self._lock:
            return [dict(record) for record in self._records.values()]

    def put(self, name: str, record: Mapping[str, Any]) -> Record:
        with self._lock:
            write_json(self._path(name), {"name": name, "record": record})
            self._records[name] = dict(record)
            return dict(record)

    def update(self, name: str, **changes: Any) -> Record:
        """Change members of a record; None removes one. Return the record."""
        with self._lock:
            record = {**self._records[name], **changes}
            return self.put(name, {key: value for key, value in record.items() if value is not None})

    def delete(self, name: str) -> None:
        with self._lock:
            self._records.pop(name, None)
            self._path(name).unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        return self._folder / f"{quote(name, safe='')}.json"


@contextlib.contextmanager
def setting_aside(path: Path) -> Iterator[None]:
    """Read a file of the state inside: one that is damaged, or not ours, is named, and gets `.damaged` for an end."""
    try:
        yield
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        aside = path.rename(path.with_name(path.name + ".damaged"))
        _log.warning("%s is damaged (%s: %s); it is set aside as %s", path, type(error).__name__, error, aside.name)


def page(operation: str, request: Mapping[str, Any], records: Iterable[Record], name: str) -> Record:
    """Return one page of a List operation, filtered, sorted and cut as the request asks, with its summaries' members.

    NameContains and SortBy Name look at the member `name`.
    """
    output: Any = service_model().operation_model(operation).output_shape
    result, summaries = next(item for item in output.members.items() if item[1].type_name == "list")
    status = f"{name.removesuffix('Name')}Status"
    matches = [record for record in records if _matches(request, record, name, status)]
    if matches and ("CreationTime" in matches[0] or "StartTime" in matches[0]):
        time_of = "CreationTime" if "CreationTime" in matches[0] else "StartTime"
        by = {"Name": name, "Status": status}.get(request.get("SortBy", ""), request.get("SortBy", time_of))
        matches.sort(key=lambda record: record.get(by, 0), reverse=request.get("SortOrder") != "Ascending")
    shown, token = cut(request, matches)
    members = getattr(summaries.member, "members", ())
    return {result: [pick(record, members) for record in shown], **token}


def cut(request: Mapping[str, Any], records: list[Record]) -> tuple[list[Record], Record]:
    """Return one page of records, and the token of the next, if there is one."""
    token = request.get("NextToken") or "0"
    if not token.isdecimal():
        raise invalid(f"NextToken {token!r} is not one of this list")
    last = int(token) + int(request.get("MaxResults") or _PAGE)
    return records[int(token) : last], {"NextToken": str(last)} if last < len(records) else {}


def pick(record: Record, names: Iterable[str]) -> Record:
    """Return these members of a record, as far as it has them."""
    return {name: record[name] for name in names if record.get(name) is not None}


def _matches(request: Mapping[str, Any], record: Record, name: str, status: str) -> bool:
    own = str(record.get(name, ""))
    if request.get("NameContains", "").lower() not in own.lower():
        return False
    if not own.startswith(request.get("PipelineNamePrefix", "")):
        return False
    if request.get("StatusEquals") not in (None, record.get(status)):
        return False
    return all(
        float(request.get(f"{asked}After") or 0)
        <= record.get(time_of, 0)
        <= float(request.get(f"{asked}Before") or float("inf"))
        for asked, time_of in _TIMES.items()
    )
