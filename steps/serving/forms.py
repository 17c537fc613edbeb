"""Requests in the forms of other endpoints' clients, read as ours, and JSON answers in theirs.

Forms and names are in aliases.yaml; what is here takes apart what is not one field for one field. What cannot be drawn
as asked is refused by its name, never left out.
"""

import base64
import json
import re
import time
from typing import Any, Final

from pydantic import ValidationError
from pydantic_core import from_json

from steps.serving.encoding import DrawnRequest
from steps.serving.errors import invalid_field, invalid_request
from steps.serving.schema import ALIASES, TABLES, GenerationRequest, PictureFormat

FORMS: Final[dict[str, dict[str, Any]]] = TABLES["forms"]


def read(
    body: bytes, path: str, accept: str, request_type: type[GenerationRequest]
) -> tuple[GenerationRequest, str | None]:
    """Return a request and its form (None: ours). Raises ApiError 400 or 422, which names each wrong field."""
    body, form = body.removeprefix(b"\xef\xbb\xbf"), None
    try:
        fields = from_json(body)
        if isinstance(fields, dict):
            form = _form(fields, path, accept)
            if form == "jumpstart":
                fields.setdefault("format", accept.split(";")[1].strip())
            body = json.dumps(_ours(fields, form)).encode()
    except ValueError:
        pass  # The model says it better.
    try:
        return request_type.model_validate_json(body), form
    except ValidationError as error:
        raise invalid_request(error, (*request_type.model_fields, *ALIASES)) from None


def answer(form: str | None, drawing: DrawnRequest, picture_format: PictureFormat, request_id: str) -> bytes:
    if form in (None, "diffusers"):
        return drawing.json(picture_format, request_id)
    files = [base64.b64encode(drawing.file(i, picture_format)).decode() for i in range(len(drawing.pictures))]
    body: Any = files[0] if len(files) == 1 else files  # Hugging Face
    if form == "openai":
        data = [{"b64_json": file} for file in files]
        body = {"created": int(time.time()), "output_format": picture_format, "data": data}
    elif form == "jumpstart":
        body = {"generated_images": files, "prompt": drawing.request.texts[0]}
    elif form == "a1111":
        info = json.dumps({"seed": drawing.seeds[0], "all_seeds": drawing.seeds, "sd_model_name": drawing.model})
        body = {"images": files, "parameters": drawing.request.model_dump(mode="json"), "info": info}
    elif form == "stability":
        ends = ["CONTENT_FILTERED" if picture.flagged else "SUCCESS" for picture in drawing.pictures]
        drawn = zip(files, drawing.seeds, ends, strict=True)
        body = {"artifacts": [{"base64": file, "seed": seed, "finishReason": end} for file, seed, end in drawn]}
    return json.dumps(body).encode()


def _form(fields: dict[str, Any], path: str, accept: str) -> str | None:
    named = [name for name, form in FORMS.items() if form.get("path") == path]
    if not named and re.fullmatch(r"application/json; *(jpeg|png)", accept):
        return "jumpstart"
    named += [name for name, form in FORMS.items() if fields.keys() & set(form.get("marks", ()))]
    return named[0] if named else None


def _ours(fields: dict[str, Any], form: str | None) -> dict[str, Any]:
    """Return the fields with names that the request's model knows; 2.0 is 2, as JSON Schema has it."""
    if form == "hugging_face":
        nested = fields.pop("parameters", None) or {}
        if not isinstance(nested, dict):
            raise invalid_field("parameters", "an object with fields")
        fields = nested | fields
    for name, value in fields.items():
        if isinstance(value, float) and value.is_integer():
            fields[name] = int(value)
        elif name.startswith(("sampler", "scheduler")) and isinstance(value, str):
            fields[name] = TABLES["samplers"].get(value.lower(), value.lower())
    if form is None:
        return fields
    fields = FORMS[form].get("defaults", {}) | fields
    if fields.get("seed") in ((-1, 0) if form == "stability" else (-1,)):
        del fields["seed"]  # There, it means any.
    if "num_images_per_prompt" in fields:
        fields.pop("batch_size", None)  # How many to draw at once is the queue's matter.
    _take_apart(fields)
    return {name: value for name, value in fields.items() if not _asks_nothing(name, value)}


def _take_apart(fields: dict[str, Any]) -> None:
    match fields.pop("text_prompts", None):
        case [{"text": text}]:
            fields["prompt"] = text
        case [{"text": text, **rest}, {"text": negative, "weight": -1}] if rest in ({}, {"weight": 1}):
            fields |= {"prompt": text, "negative_prompt": negative}
        case not_ours if not_ours is not None:
            raise invalid_field("text_prompts", "one text, or two of the weights 1 and -1")
    size = fields.pop("size", None)
    if sides := re.fullmatch(r"(\d{1,5})x(\d{1,5})", str(size)):
        fields |= {"width": int(sides[1]), "height": int(sides[2])}
    elif size not in (None, "auto"):
        raise invalid_field("size", "WIDTHxHEIGHT in pixels, such as 512x512, or auto")


def _asks_nothing(name: str, value: Any) -> bool:
    means_something = name in ALIASES or name in GenerationRequest.model_fields
    nothing: tuple[Any, ...] = (None,) if means_something else (None, False, 0, -1, "", [], {})
    return value in (*nothing, *TABLES["harmless"].get(name, ())) or name in TABLES["passed_over"]
