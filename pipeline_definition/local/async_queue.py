"""Asynchronous invocations: a queue in front of each endpoint that loses nothing when a host or this process is killed.

Reads a payload from S3 when its turn comes; writes <S3OutputPath>/<id>.out, or <S3FailurePath>/<id>-error.out where the
model fails. Until then <state>/records/async-invocations/<id>.json keeps the invocation. A host gets at most
MaxConcurrentInvocationsPerInstance at a time; what it takes with it when it dies is asked of the next one.
"""

import logging
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from werkzeug.wrappers import Response

from pipeline_definition.local.errors import RefusedRequestError
from pipeline_definition.local.records import Record
from pipeline_definition.local.services import Services

# What InvokeEndpointAsync and SageMaker choose where nothing is said.
_DEFAULTS: Final = {"InvocationTimeoutSeconds": 900, "RequestTTLSeconds": 21_600}
_AT_ONCE: Final = 4
# A request that ended so many hosts is to blame for it.
_MOST_HOSTS_LOST: Final = 8
_PAUSE_S: Final = 0.1
_log = logging.getLogger(__name__)

Invoke = Callable[[str, bytes, Mapping[str, str], float], Response | None]
"""Asks an endpoint: name, body, headers, seconds. None: no host is there; RefusedRequestError: its host was lost."""


class AsyncQueue:
    def __init__(self, services: Services, invoke: Invoke) -> None:
        self._store, self._records = services.store, services.records["async-invocation"]
        self._endpoints, self._invoke = services.records["endpoint"], invoke
        self._turns: dict[tuple[str, int], ThreadPoolExecutor] = {}
        self._closing = threading.Event()

    def accept(
        self, endpoint: str, asked: Mapping[str, str], headers: Mapping[str, str], config: Mapping[str, Any]
    ) -> tuple[str, str]:
        """Take in an invocation, which is on disk before; return where its answer or its failure will be."""
        output, own_id = config["OutputConfig"], str(uuid.uuid4())
        answers, failures = output["S3OutputPath"], output.get("S3FailurePath", output["S3OutputPath"])
        places = f"{answers.rstrip('/')}/{own_id}.out", f"{failures.rstrip('/')}/{own_id}-error.out"
        at_once = config.get("ClientConfig", {}).get("MaxConcurrentInvocationsPerInstance", _AT_ONCE)
        about = {"Endpoint": endpoint, "Asked": {**_DEFAULTS, **asked}, "Headers": dict(headers), "AtOnce": at_once}
        self._add(self._records.put(own_id, {"Id": own_id, "Places": places, "ReceivedAt": time.time(), **about}))
        return places

    def restore(self) -> None:
        """Take up what waited, or was being answered, when the control plane ended."""
        for invocation in sorted(self._records.all(), key=lambda one: float(one["ReceivedAt"])):
            self._add(invocation)

    def shut_down(self) -> None:
        """Begin no more; the records stay for the next start."""
        self._closing.set()
        for turns in self._turns.values():
            turns.shutdown(wait=False, cancel_futures=True)

    def _add(self, invocation: Record) -> None:
        at_once = invocation["AtOnce"]
        turns = self._turns.setdefault((invocation["Endpoint"], at_once), ThreadPoolExecutor(at_once))
        turns.submit(self._run, invocation)

    def _run(self, invocation: Record) -> None:
        try:
            answer = self._answer(invocation)
            if answer is None:
                return
            ok, content = answer.status_code == 200, answer.get_data()
        except Exception as error:
            _log.exception("asynchronous invocation %s", invocation["Id"])
            ok, content = False, f"{type(error).__name__}: {error}".encode()
        self._store.put(invocation["Places"][not ok], content)
        self._records.delete(invocation["Id"])

    def _answer(self, invocation: Record) -> Response | None:
        """Ask until a host has answered; None where the control plane ends first."""
        endpoint, asked, hosts_lost = invocation["Endpoint"], invocation["Asked"], 0
        while not self._closing.is_set():
            is_late = time.time() > invocation["ReceivedAt"] + float(asked["RequestTTLSeconds"])
            if is_late or hosts_lost == _MOST_HOSTS_LOST or endpoint not in self._endpoints:
                return Response(f"no host answered in time; {hosts_lost} were lost with this request", 503)
            body, timeout_s = self._store.read(asked["InputLocation"]), float(asked["InvocationTimeoutSeconds"])
            try:
                if answer := self._invoke(endpoint, body, invocation["Headers"], timeout_s):
                    return answer
            except RefusedRequestError:
                hosts_lost += 1
            self._closing.wait(_PAUSE_S)
        return None
