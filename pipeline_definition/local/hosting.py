"""Endpoints: server processes behind CreateEndpoint, UpdateEndpoint and InvokeEndpoint.

An update starts the new variants while the old ones serve, and switches when all of them answer; if one does not, the
old ones stay in service and the endpoint's FailureReason says why.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import threading
import time
import uuid
from collections.abc import Mapping
from typing import Any

from botocore.exceptions import ClientError

from pipeline_definition.local.answers import Answer
from pipeline_definition.local.environment import arn
from pipeline_definition.local.errors import RefusedRequestError, StepFailureError, StepStoppedError, invalid
from pipeline_definition.local.jobs import as_failure
from pipeline_definition.local.records import Record, page, pick
from pipeline_definition.local.services import Services
from pipeline_definition.local.settings import ACCOUNT
from pipeline_definition.local.stop_signal import StopSignal
from pipeline_definition.local.variant import RunningVariant

_SERVING = ("InService", "Updating")
_FORWARDED = ("content-type", "x-amzn-sagemaker-custom-attributes")
_DRAIN_S = 5.0
_POLL_S = 0.05


class Hosting:
    """All endpoints."""

    def __init__(self, services: Services) -> None:
        self._services, self._records = services, services.endpoints
        self._variants: dict[str, list[RunningVariant]] = {}
        self._alive: set[RunningVariant] = set()
        """Every variant with a server, the starting ones among them."""
        self._in_flight: dict[RunningVariant, int] = {}
        self._closing = False
        self._counting, self._creating = threading.Lock(), threading.Lock()

    def create(self, request: Mapping[str, Any]) -> Record:
        """Answer CreateEndpoint."""
        name, own_arn, now_s = request["EndpointName"], arn("endpoint", request["EndpointName"]), time.time()
        self._config(request["EndpointConfigName"])
        record = {
            "EndpointName": name,
            "EndpointArn": own_arn,
            "EndpointConfigName": request["EndpointConfigName"],
            "EndpointStatus": "Creating",
            "CreationTime": now_s,
            "LastModifiedTime": now_s,
            "Tags": request.get("Tags", []),
        }
        with self._creating:
            if name in self._records:
                raise invalid(f'Cannot create already existing endpoint "{own_arn}".')
            self._records.put(name, record)
        self._deploy_soon(name, request["EndpointConfigName"])
        return {"EndpointArn": own_arn}

    def update(self, request: Mapping[str, Any]) -> Record:
        """Answer UpdateEndpoint."""
        record = self._record(request["EndpointName"])
        if record["EndpointStatus"] not in ("InService", "Failed"):
            raise invalid(f"Cannot update endpoint in status {record['EndpointStatus']}")
        self._config(request["EndpointConfigName"])
        self._set(record["EndpointName"], "Updating", FailureReason=None)
        self._deploy_soon(record["EndpointName"], request["EndpointConfigName"])
        return {"EndpointArn": record["EndpointArn"]}

    def delete(self, request: Mapping[str, Any]) -> Record:
        """Answer DeleteEndpoint."""
        name = self._record(request["EndpointName"])["EndpointName"]
        self._records.delete(name)
        self._variants.pop(name, None)
        self._end([variant for variant in self._alive if variant.endpoint == name])
        return {}

    def describe(self, request: Mapping[str, Any]) -> Record:
        """Answer DescribeEndpoint."""
        record = self._record(request["EndpointName"])
        record.pop("Tags", None)
        return record

    def list_endpoints(self, request: Mapping[str, Any]) -> Record:
        """Answer ListEndpoints."""
        members = pick("EndpointName", "EndpointArn", "CreationTime", "LastModifiedTime", "EndpointStatus")
        name, status = "EndpointName", "EndpointStatus"
        return page(request, self._records.all(), result="Endpoints", name=name, status=status, summary=members)

    def update_weights(self, request: Mapping[str, Any]) -> Record:
        """Answer UpdateEndpointWeightsAndCapacities."""
        record = self._record(request["EndpointName"])
        running = {variant.name: variant for variant in self._variants.get(record["EndpointName"], [])}
        for item in request["DesiredWeightsAndCapacities"]:
            if item["VariantName"] not in running:
                raise invalid(f"The endpoint has no variant {item['VariantName']!r}; it has {', '.join(running)}")
            if "DesiredWeight" in item:
                running[item["VariantName"]].weight = float(item["DesiredWeight"])
        self._set(record["EndpointName"], record["EndpointStatus"], **_summary(list(running.values())))
        return {"EndpointArn": record["EndpointArn"]}

    def create_or_update(self, request: Mapping[str, Any], stop: StopSignal) -> Record:
        """Carry out an EndpointStep: return the endpoint's record once it serves the configuration.

        Raises StepFailureError with the endpoint's reason.
        """
        name, config = request["EndpointName"], request["EndpointConfigName"]
        if name in self._records:
            self._settled(name, stop)
            self.update({"EndpointName": name, "EndpointConfigName": config})
        else:
            self.create(request)
        record = self._settled(name, stop)
        if record["EndpointStatus"] != "InService" or record["EndpointConfigName"] != config:
            raise StepFailureError(record.get("FailureReason", f"endpoint {name}: {record['EndpointStatus']}"))
        return record

    def _settled(self, name: str, stop: StopSignal) -> Record:
        while (record := self._record(name))["EndpointStatus"] in ("Creating", "Updating"):
            stop.sleep(_POLL_S)
        return record

    def invoke(self, name: str, body: bytes, headers: Mapping[str, str], target: str | None) -> Answer:
        """Answer InvokeEndpoint: forward to one variant, by weight or by name.

        Raises RefusedRequestError: ValidationError, ServiceUnavailable, or ModelError (424) with the server's answer.
        """
        record = self._records.find(name)
        if record is None or (record["EndpointStatus"] not in _SERVING and not self._variants.get(name)):
            raise RefusedRequestError("ValidationError", f"Endpoint {name} of account {ACCOUNT} not found.")
        variant = self._choose(name, target)
        with self._counted(variant):
            try:
                status, answer, data = variant.invoke(body, headers)
            except (OSError, http.client.HTTPException) as error:
                raise RefusedRequestError("ServiceUnavailable", f"variant {variant.name}: {error}", 503) from None
        if status >= 300:
            return _model_error(status, data)
        kept = {key: value for key, value in answer.items() if key.lower() in _FORWARDED}
        return 200, {**kept, "x-Amzn-Invoked-Production-Variant": variant.name}, data

    def restore(self) -> None:
        """Start the servers of the endpoints that were in service when the control plane ended."""
        for record in self._records.all():
            if record["EndpointStatus"] != "Failed":
                self._set(record["EndpointName"], "Creating")
                self._deploy_soon(record["EndpointName"], record["EndpointConfigName"])

    def shut_down(self) -> None:
        """End every server; the records stay for the next start."""
        self._closing = True
        self._variants.clear()
        self._end(list(self._alive))

    def _deploy_soon(self, name: str, config_name: str) -> None:
        threading.Thread(target=self._deploy, args=(name, config_name), daemon=True).start()

    def _deploy(self, name: str, config_name: str) -> None:
        started: list[RunningVariant] = []
        try:
            configs = self._config(config_name)["ProductionVariants"]
            deployment = uuid.uuid4().hex[:8]
            for config in configs:
                variant = RunningVariant(self._services, name, config, deployment, len(configs))
                started.append(variant)
                self._alive.add(variant)
                variant.start()
        except StepStoppedError:
            return
        except Exception as error:
            self._fall_back(name, started, as_failure(error).reason)
            return
        if self._closing or name not in self._records:
            self._end(started)
            return
        old, self._variants[name] = self._variants.get(name, []), started
        self._set(name, "InService", EndpointConfigName=config_name, FailureReason=None, **_summary(started))
        self._drain(old)
        self._end(old)

    def _fall_back(self, name: str, started: list[RunningVariant], reason: str) -> None:
        self._end(started)
        status = "InService" if self._variants.get(name) else "Failed"
        if name in self._records and not self._closing:
            self._set(name, status, FailureReason=reason[:1024])

    def _drain(self, variants: list[RunningVariant]) -> None:
        deadline_s = time.monotonic() + _DRAIN_S
        while any(self._in_flight.get(variant) for variant in variants) and time.monotonic() < deadline_s:
            time.sleep(_POLL_S)

    def _end(self, variants: list[RunningVariant]) -> None:
        threads = [threading.Thread(target=variant.stop) for variant in variants]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with self._counting:
            self._alive.difference_update(variants)
            for variant in variants:
                self._in_flight.pop(variant, None)

    def _choose(self, name: str, target: str | None) -> RunningVariant:
        variants = self._variants.get(name, [])
        if target is not None:
            variants = [variant for variant in variants if variant.name == target]
            if not variants:
                raise RefusedRequestError("ValidationError", f"Variant {target} of endpoint {name} not found.")
            return variants[0]
        weights = [variant.weight for variant in variants]
        if not sum(weights):
            raise RefusedRequestError("ServiceUnavailable", f"Endpoint {name} has no variant with weight.", 503)
        return random.choices(variants, weights)[0]

    @contextlib.contextmanager
    def _counted(self, variant: RunningVariant) -> Any:
        with self._counting:
            self._in_flight[variant] = self._in_flight.get(variant, 0) + 1
        try:
            yield
        finally:
            with self._counting:
                if variant in self._in_flight:
                    self._in_flight[variant] -= 1

    def _record(self, name: str) -> Record:
        return self._records.get(name, invalid(f'Could not find endpoint "{arn("endpoint", name)}".'))

    def _config(self, name: str) -> Mapping[str, Any]:
        try:
            config: Mapping[str, Any] = self._services.client("sagemaker").describe_endpoint_config(
                EndpointConfigName=name
            )
        except ClientError as error:
            raise invalid(error.response["Error"]["Message"]) from None
        return config

    def _set(self, name: str, status: str, **changes: Any) -> None:
        self._records.update(name, EndpointStatus=status, LastModifiedTime=time.time(), **changes)


def _model_error(status: int, data: bytes) -> Answer:
    text = data.decode("utf-8", "replace")
    side = "client" if status < 500 else "server"
    body = {
        "Message": f'Received {side} error ({status}) from primary with message "{text}".',
        "OriginalMessage": text,
        "OriginalStatusCode": status,
        "LogStreamArn": "",
    }
    headers = {"x-amzn-ErrorType": "ModelError", "Content-Type": "application/json"}
    return 424, headers, json.dumps(body).encode()


def _summary(variants: list[RunningVariant]) -> Record:
    return {
        "ProductionVariants": [
            {
                "VariantName": variant.name,
                "CurrentWeight": variant.weight,
                "DesiredWeight": variant.weight,
                "CurrentInstanceCount": 1,
                "DesiredInstanceCount": 1,
            }
            for variant in variants
        ]
    }
