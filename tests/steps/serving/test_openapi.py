"""The document of the endpoint is valid, complete, true of the running endpoint, and enough to make a client from."""

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from openapi_spec_validator import OpenAPIV31SpecValidator
from pydantic import BaseModel, create_model
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance
from starlette.testclient import TestClient

from tests.steps.serving.conftest import ARGUMENTS, Serve
from tests.steps.serving.fakes import FakeRenderer

FOREIGN = ("/v1/images/generations", "/sdapi/v1/txt2img")
ERRORS = {"400", "406", "408", "413", "415", "422", "429", "500", "503", "504"}


@pytest.fixture(name="client", scope="module")
def client_fixture(serve: Serve) -> Iterator[TestClient]:
    with serve(FakeRenderer().load, max_body_bytes=65_536, queue_size=32) as (client, _):
        yield client


@pytest.fixture(name="document", scope="module")
def document_fixture(client: TestClient) -> dict[str, Any]:
    document: dict[str, Any] = client.get("/openapi.json").json()
    return document


def test_the_document_is_valid_openapi_3_1(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1")
    assert list(OpenAPIV31SpecValidator(document).iter_errors()) == []


def test_every_status_has_its_form(document: dict[str, Any]) -> None:
    responses = document["paths"]["/invocations"]["post"]["responses"]
    assert set(responses) == {"200"} | ERRORS
    forms = {json.dumps(responses[status]["content"]) for status in ERRORS}
    assert forms == {'{"application/json": {"schema": {"$ref": "#/components/schemas/ErrorAnswer"}}}'}
    assert list(document["paths"]["/metrics"]["get"]["responses"]["200"]["content"]) == ["text/plain"]


def test_every_field_is_described_with_its_range(document: dict[str, Any]) -> None:
    for name, schema in document["components"]["schemas"].items():
        for field, about in schema["properties"].items():
            assert "$ref" in about or about.get("description"), f"{name}.{field}"
    fields = document["components"]["schemas"]["GenerationRequest"]["properties"]
    assert fields["steps"]["maximum"] == ARGUMENTS.max_inference_steps
    assert (fields["width"]["multipleOf"], fields["width"]["description"][:6]) == (8, "Pixels")
    assert fields["adapter"]["enum"] == ["", "ink", "oil"]


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_schemathesis_finds_nothing(grey_url: str, mode: GenerationMode) -> None:
    schema = schemathesis.openapi.from_url(f"{grey_url}/openapi.json")
    operations = {operation.path: operation for operation in (result.ok() for result in schema.get_all_operations())}
    assert set(operations) == {"/ping", "/metrics", "/invocations", *FOREIGN}

    @settings(deadline=None, max_examples=40, suppress_health_check=list(HealthCheck), derandomize=True, database=None)
    @given(case=operations["/invocations"].as_strategy(generation_mode=mode))
    def never_surprised(case: schemathesis.Case) -> None:
        case.call_and_validate()

    never_surprised()
    for path in ("/ping", "/metrics"):
        operations[path].Case().call_and_validate()


@pytest.mark.parametrize("path", FOREIGN)
def test_what_the_document_says_of_others_clients_is_drawn_or_refused_in_its_forms(grey_url: str, path: str) -> None:
    schema = schemathesis.openapi.from_url(f"{grey_url}/openapi.json")
    statuses: set[int] = set()

    @settings(deadline=None, max_examples=40, suppress_health_check=list(HealthCheck), derandomize=True, database=None)
    @given(case=schema[path]["POST"].as_strategy(generation_mode=GenerationMode.POSITIVE))
    def never_surprised(case: schemathesis.Case) -> None:
        response = case.call()
        case.validate_response(response, excluded_checks=[positive_data_acceptance])  # Sizes have ranges, too.
        statuses.add(response.status_code)

    never_surprised()
    assert 200 in statuses


def generated(document: dict[str, Any], name: str) -> type[BaseModel]:
    """Make a model from a schema of the document, as generators of clients do."""
    kinds = {"string": str, "integer": int, "number": float, "boolean": bool}

    def kind(about: dict[str, Any]) -> Any:
        if "$ref" in about:
            return generated(document, about["$ref"].removeprefix("#/components/schemas/"))
        if "anyOf" in about:
            return next(kind(one) for one in about["anyOf"] if one.get("type") != "null") | None
        if about["type"] == "array":
            return list[kind(about["items"])]  # type: ignore[misc]
        return dict if about["type"] == "object" else kinds[about["type"]]

    schema = document["components"]["schemas"][name]
    required = schema.get("required", [])
    fields: dict[str, Any] = {
        field: (kind(about), ...) if field in required else (kind(about) | None, None)
        for field, about in schema["properties"].items()
    }
    return create_model(name, **fields)


def test_a_client_made_from_the_document_draws_and_understands_errors(
    client: TestClient, document: dict[str, Any]
) -> None:
    request = generated(document, "GenerationRequest")
    body = request(prompt="a", steps=2, seed=5).model_dump_json(exclude_none=True)
    answer = client.post("/invocations", content=body, headers={"Accept": "application/json"})
    drawn: Any = generated(document, "GenerationResponse").model_validate_json(answer.content)
    assert base64.b64decode(drawn.images[0].image).startswith(b"\x89PNG")
    assert (drawn.images[0].seed, drawn.request_id) == (5, answer.headers["x-request-id"])
    refused = client.post("/invocations", content=request(prompt="a", steps=99).model_dump_json(exclude_none=True))
    error: Any = generated(document, "ErrorAnswer").model_validate_json(refused.content)
    assert (error.error.status, error.request_id) == (422, refused.headers["x-request-id"])
