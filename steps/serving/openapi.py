"""What GET /openapi.json says: FastAPI's document with the request, which is checked by hand, and every error."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI

from steps.serving import media
from steps.serving.errors import ErrorAnswer
from steps.serving.schema import GenerationResponse
from steps.serving.service import Service

Schema = dict[str, Any]


def failures(*statuses: int) -> dict[int | str, Schema]:
    """Return what the document says of answers that are errors."""
    return {status: {"model": ErrorAnswer, "description": HTTPStatus(status).phrase} for status in statuses}


_BODY: Final = {"content": {media.JSON: {"schema": {"$ref": "#/components/schemas/GenerationRequest"}}}}
_PICTURES: Final[Schema] = {f"image/{name}": {} for name in media.PICTURE_FORMATS}
# What the document says of /invocations, as arguments of its route.
INVOCATIONS: Final[dict[str, Any]] = {
    "responses": {
        200: {"model": GenerationResponse, "description": "The pictures", "content": _PICTURES},
        **failures(400, 406, 408, 413, 415, 422, 429, 500, 503, 504),
    },
    "openapi_extra": {"requestBody": {"required": True, **_BODY}},
}


class DocumentedApp(FastAPI):
    """An application whose document holds the schema of this endpoint's requests."""

    service: Service

    def openapi(self) -> Schema:
        """Return the document; the adapters are in it once the model is loaded."""
        own = self.service.request_type.model_json_schema()
        if self.service.worker.renderer is not None:
            own["properties"]["adapter"]["enum"] = ["", *self.service.worker.renderer.adapters]
        document = super().openapi()
        document["components"]["schemas"][own["title"]] = own | _prompt_or_prompts(self.service.arguments.max_images)
        return document


def _prompt_or_prompts(most: int) -> Schema:
    """Return which requests have a prompt, and how many pictures: in words that generators of clients pass over."""
    fitting = [
        {"properties": {"prompts": {"maxItems": count}, "num_images": {"maximum": most // count}}}
        for count in range(1, most + 1)
    ]
    return {
        "if": {"required": ["prompts"], "properties": {"prompts": {"type": "array"}}},
        "then": {"properties": {"prompt": {"type": "null"}}, "anyOf": fitting},
        "else": {"required": ["prompt"], "properties": {"prompt": {"type": "string"}}},
    }
