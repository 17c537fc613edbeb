"""Endpoints: server processes behind CreateEndpoint, UpdateEndpoint, InvokeEndpoint and InvokeEndpointAsync.

An update starts the new variants while the old ones serve, and switches when all of them answer; if one does not, the
old ones stay in service and the endpoint's FailureReason says why. Asynchronous invocations wait in `async_queue`.
"""

import http.client
import random
import threading
import time
import uuid
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from typing import Any

from werkzeug.wrappers import Response

from pipeline_definition.local.answers import json_answer
from pipeline_definition.local.async_queue import AsyncQueue
from pipeline_definition.local.catalogue import Catalogue
from pipeline_definition.local.errors import RefusedRequestError, StepFailureError, StepStoppedError, as_failure
from pipeline_definition.local.records import Record
from pipeline_definition.local.services import Services
from pipeline_definition.local.settings import ACCOUNT
from pipeline_definition.local.stop_signal import StopSignal
from pipeline_definition.local.variant import RunningVariant

_SERVING = ("InService", "Updating")
_ANSWERED = ("content-type", "x-amzn-sagemaker-custom-attributes")
_TIMEOUT_S = 60.0
_ORIGINAL_STATUS = "x-Amzn-Original-Status"
_DRAIN_S = 5.0
_POLL_S = 0.05


class Hosting(Catalogue):
    def __init__(self, services: Services, configs: Catalogue) -> None:
        super().__init__(services.records, "endpoint", "Endpoint")
        self._services, self._configs = services, configs
        self._variants: dict[str, list[RunningVariant]] = {}
        self._alive: set[RunningVariant] = set()
        """Every variant with a server, the starting ones among them."""
        self._closing = False
        self._creating = threading.Lock()
        self._queue = AsyncQueue(services, self._invoke_ready)

    def create(self, request: Mapping[str, Any]) -> Record:
        self._configs.find(request["EndpointConfigName"])
        with self._creating:
            record = self.add(request, EndpointStatus="Creating")
        self._deploy_soon(record["EndpointName"], request["EndpointConfigName"])
        return {"EndpointArn": record["EndpointArn"]}

    def update_endpoint(self, request: Mapping[str, Any]) -> Record:
        record = self.find(request["EndpointName"])
        if (status := record["EndpointStatus"]) not in ("InService", "Failed"):
            raise RefusedRequestError("ValidationException", f"Cannot update endpoint in status {status}")
        self._configs.find(request["EndpointConfigName"])
        self._set(record["EndpointName"], "Updating", FailureReason=None)
        self._deploy_soon(record["EndpointName"], request["EndpointConfigName"])
        return {"EndpointArn": record["EndpointArn"]}

    def delete(self, request: Mapping[str, Any]) -> Record:
        name = self.find(request["EndpointName"])["EndpointName"]
        self.records.delete(name)
        self._variants.pop(name, None)
        self._end([variant for variant in self._alive if variant.endpoint == name])
        return {}

    def serve(self, request: Mapping[str, Any], stop: StopSignal) -> Record:
        """Return an endpoint's record once it serves the configuration; StepFailureError has the endpoint's reason."""
        name, config = request["EndpointName"], request["EndpointConfigName"]
        if name in self.records:
            self._settled(name, stop)
            self.update_endpoint(request)
        else:
            self.create(request)
        record = self._settled(name, stop)
        if record["EndpointStatus"] != "InService" or record["EndpointConfigName"] != config:
            raise StepFailureError(record.get("FailureReason", f"endpoint {name}: {record['EndpointStatus']}"))
        return record

    def invoke(
        self, name: str, body: bytes, headers: Mapping[str, str], target: str | None, timeout_s: float = _TIMEOUT_S
    ) -> Response:
        """Answer InvokeEndpoint by one variant, by weight or by name; a model's error is answered as ModelError."""
        record = self.records.find(name)
        if record is None or (record["EndpointStatus"] not in _SERVING and not self._variants.get(name)):
            raise RefusedRequestError("ValidationError", f"Endpoint {name} of account {ACCOUNT} not found.")
        variant = self._choose(name, target)
        try:
            status, answer, data = variant.invoke(body, headers, timeout_s)
        except TimeoutError:
            return _model_error(0, b"Your invocation timed out while waiting for a response from container primary.")
        except (OSError, http.client.HTTPException) as error:
            raise RefusedRequestError("ServiceUnavailable", f"variant {variant.name}: {error}", 503) from None
        if status >= 300:
            return _model_error(status, data)
        kept = {key: value for key, value in answer.items() if key.lower() in _ANSWERED}
        return Response(data, 200, {**kept, "x-Amzn-Invoked-Production-Variant": variant.name})

    def invoke_async(self, name: str, asked: Mapping[str, str], headers: Mapping[str, str]) -> Response:
        """Answer InvokeEndpointAsync, whose own headers are `asked`; the invocation waits for its turn."""
        missing = RefusedRequestError("ValidationError", f"Endpoint {name} not found.")
        config_name = self.records.get(name, missing)["EndpointConfigName"]
        config = self._configs.find(config_name).get("AsyncInferenceConfig")
        if not config:
            problem = f"Endpoint configuration {config_name} has no AsyncInferenceConfig"
            raise RefusedRequestError("ValidationError", problem)
        location = asked.get("InputLocation", "")
        if not self._services.store.exists(location):
            raise RefusedRequestError("ValidationError", f"There is no object {location}")
        out, failed = self._queue.accept(name, asked, headers, config)
        places = {"X-Amzn-SageMaker-OutputLocation": out, "X-Amzn-SageMaker-FailureLocation": failed}
        return json_answer({"InferenceId": asked.get("Inference-Id", str(uuid.uuid4()))}, 202, places)

    def _invoke_ready(self, name: str, body: bytes, headers: Mapping[str, str], timeout_s: float) -> Response | None:
        """Invoke a host; None where none takes requests now. Raises RefusedRequestError where it is lost meanwhile."""
        if not any(variant.ping() for variant in self._variants.get(name, ())):
            return None
        answer = self.invoke(name, body, headers, None, timeout_s)
        is_busy = answer.headers.get(_ORIGINAL_STATUS) == str(int(HTTPStatus.SERVICE_UNAVAILABLE))
        return None if is_busy else answer

    def restore(self) -> None:
        """Start the servers of the endpoints that were in service when the control plane ended, and what they owe."""
        for record in self.records.all():
            if record["EndpointStatus"] != "Failed":
                self._set(record["EndpointName"], "Creating")
                self._deploy_soon(record["EndpointName"], record["EndpointConfigName"])
        self._queue.restore()

    def shut_down(self) -> None:
        """End every server; the records stay for the next start."""
        self._closing = True
        self._queue.shut_down()
        self._variants.clear()
        self._end(list(self._alive))

    def _deploy_soon(self, name: str, config_name: str) -> None:
        threading.Thread(target=self._deploy, args=(name, config_name), daemon=True).start()

    def _deploy(self, name: str, config_name: str) -> None:
        started: list[RunningVariant] = []
        try:
            configs = self._configs.find(config_name)["ProductionVariants"]
            deployment = uuid.uuid4().hex[:8]
            for config in configs:
                variant = RunningVariant(self._services, name, config, deployment, len(configs))
                started.append(variant)
                self._alive.add(variant)
                variant.start()
        except StepStoppedError:
            return
        except Exception as error:
            self._end(started)
            if name in self.records and not self._closing:
                status = "InService" if self._variants.get(name) else "Failed"
                self._set(name, status, FailureReason=as_failure(error).reason[:1024])
            return
        if self._closing or name not in self.records:
            self._end(started)
            return
        old, self._variants[name] = self._variants.get(name, []), started
        self._set(name, "InService", EndpointConfigName=config_name, FailureReason=None, **_summary(started))
        deadline_s = time.monotonic() + _DRAIN_S
        while any(variant.in_flight for variant in old) and time.monotonic() < deadline_s:
            time.sleep(_POLL_S)
        self._end(old)

    def _end(self, variants: list[RunningVariant]) -> None:
        with ThreadPoolExecutor(max(1, len(variants))) as pool:
            list(pool.map(RunningVariant.stop, variants))
        self._alive.difference_update(variants)

    def _choose(self, name: str, target: str | None) -> RunningVariant:
        variants = self._variants.get(name, [])
        if target is not None:
            for variant in variants:
                if variant.name == target:
                    return variant
            raise RefusedRequestError("ValidationError", f"Variant {target} of endpoint {name} not found.")
        weights = [variant.weight for variant in variants]
        if not sum(weights):
            raise RefusedRequestError("ServiceUnavailable", f"Endpoint {name} has no variant with weight.", 503)
        return random.choices(variants, weights)[0]

    def _settled(self, name: str, stop: StopSignal) -> Record:
        while (record := self.find(name))["EndpointStatus"] in ("Creating", "Updating"):
            stop.sleep(_POLL_S)
        return record

    def _set(self, name: str, status: str, **changes: Any) -> None:
        self.records.update(name, EndpointStatus=status, LastModifiedTime=time.time(), **changes)


def _model_error(status: int, data: bytes) -> Response:
    text = data.decode("utf-8", "replace")
    side = "client" if 400 <= status < 500 else "server"
    body = {
        "Message": f'Received {side} error ({status}) from primary with message "{text}".',
        "OriginalMessage": text,
        "OriginalStatusCode": status,
        "LogStreamArn": "",
    }
    return json_answer(body, 424, {"x-amzn-ErrorType": "ModelError", _ORIGINAL_STATUS: str(status)})


def _summary(variants: list[RunningVariant]) -> Record:
    weights = ({"VariantName": one.name, "CurrentWeight": one.weight, "DesiredWeight": one.weight} for one in variants)
    return {"ProductionVariants": [{**own, "CurrentInstanceCount": 1, "DesiredInstanceCount": 1} for own in weights]}
