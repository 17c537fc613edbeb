"""InvokeEndpointAsync: the payload is an object in S3, and so is the answer.

Reads the InputLocation, writes <S3OutputPath>/<id>.out, or <S3FailurePath>/<id>-error.out where the model fails.
"""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Mapping
from typing import Any

from pipeline_definition.local.answers import Answer
from pipeline_definition.local.errors import RefusedRequestError
from pipeline_definition.local.hosting import Hosting
from pipeline_definition.local.services import Services


class AsyncInference:
    """Asynchronous invocations of all endpoints."""

    def __init__(self, services: Services, hosting: Hosting) -> None:
        self._services, self._hosting = services, hosting

    def invoke(self, name: str, location: str, headers: Mapping[str, str], inference_id: str | None) -> Answer:
        """Answer InvokeEndpointAsync; the invocation goes on by itself.

        Raises RefusedRequestError (ValidationError) for a missing payload, or an endpoint that is missing or not
        asynchronous.
        """
        record = self._services.endpoints.get(
            name, RefusedRequestError("ValidationError", f"Endpoint {name} not found.")
        )
        output = self._output_config(record["EndpointConfigName"])
        if not self._services.store.exists(location):
            raise RefusedRequestError("ValidationError", f"There is no object {location}")
        own_id = inference_id or str(uuid.uuid4())
        out = f"{output['S3OutputPath'].rstrip('/')}/{own_id}.out"
        failed = f"{output.get('S3FailurePath', output['S3OutputPath']).rstrip('/')}/{own_id}-error.out"
        body = self._services.store.read(location)
        threading.Thread(target=self._run, args=(name, body, headers, out, failed), daemon=True).start()
        answer = {
            "Content-Type": "application/json",
            "X-Amzn-SageMaker-OutputLocation": out,
            "X-Amzn-SageMaker-FailureLocation": failed,
        }
        return 202, answer, json.dumps({"InferenceId": own_id}).encode()

    def _run(self, name: str, body: bytes, headers: Mapping[str, str], out: str, failed: str) -> None:
        try:
            status, _, data = self._hosting.invoke(name, body, headers, None)
        except RefusedRequestError as error:
            status, data = error.status, error.message.encode()
        self._services.store.put(out if status == 200 else failed, data)

    def _output_config(self, config_name: str) -> Mapping[str, Any]:
        client = self._services.client("sagemaker")
        config = client.describe_endpoint_config(EndpointConfigName=config_name).get("AsyncInferenceConfig")
        if not config:
            raise RefusedRequestError(
                "ValidationError", f"Endpoint configuration {config_name} has no AsyncInferenceConfig"
            )
        output: Mapping[str, Any] = config["OutputConfig"]
        return output
