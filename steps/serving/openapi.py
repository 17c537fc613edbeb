"""What GET /openapi.json says: openapi.yaml, and the schemas of requests and answers, which FastAPI does not see."""

from typing import Any, Final

from fastapi import FastAPI
from pydantic.json_schema import models_json_schema

from params.tables import table_beside
from steps.serving.schema import GenerationResponse
from steps.serving.service import Service

STATED: Final = table_beside(__file__)


class DocumentedApp(FastAPI):
    service: Service

    def openapi(self) -> dict[str, Any]:
        """Return the document; the adapters are in it once the model is loaded."""
        _, found = models_json_schema(
            [(self.service.request_type, "validation"), (GenerationResponse, "validation")],
            ref_template="#/components/schemas/{model}",
        )
        schemas: dict[str, Any] = found["$defs"]
        own, renderer = schemas["GenerationRequest"], self.service.worker.renderer
        own |= _prompt_or_prompts(self.service.arguments.max_images)
        if renderer is not None:
            own["properties"]["adapter"]["enum"] = ["", *renderer.adapters]
        return super().openapi() | {"paths": STATED["paths"], "components": {"schemas": schemas | STATED["schemas"]}}


def _prompt_or_prompts(most: int) -> dict[str, Any]:
    """Return which requests have a prompt, and how many pictures: in words that generators of clients pass over."""
    counts = [
        {"prompts": {"maxItems": count}, "num_images": {"maximum": most // count}} for count in range(1, most + 1)
    ]
    return {
        "if": {"required": ["prompts"], "properties": {"prompts": {"type": "array"}}},
        "then": {"properties": {"prompt": {"type": "null"}}, "anyOf": [{"properties": count} for count in counts]},
        "else": {"required": ["prompt"], "properties": {"prompt": {"type": "string"}}},
    }
