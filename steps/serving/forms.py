"""Requests in the forms of other endpoints' clients, read as ours, and JSON answers in theirs.

A form is known by its path or by a field that it alone has. Names are in aliases.yaml; what is here takes
apart what is not one field for one field. What cannot be drawn as asked is refused by its name, never left out.
"""

from __future__ import annotations

import base64
import json
import re
import time
from enum import Enum
from typing import Any, Final

from pydantic import ValidationError
from pydantic_core import from_json

from steps.serving.encoding import DrawnRequest
from steps.serving.errors import invalid_field, invalid_request
from steps.serving.schema import ALIASES, TABLES, GenerationRequest, PictureFormat


class Form(Enum):
    """Whose form a request has; its value: the fields that tell."""

    STABILITY = frozenset({"text_prompts"})
    HUGGING_FACE = frozenset({"inputs"})
    OPENAI = frozenset({"n", "size", "response_format", "output_format"})
    DIFFUSERS = frozenset({"num_inference_steps", "num_images_per_prompt"})
    A1111 = frozenset({"cfg_scale", "batch_size", "n_iter", "sampler_name", "sampler_index"})
    JUMPSTART = frozenset[str]()  # Diffusers' names; it asks for application/json;jpeg.


PATHS: Final = {"/v1/images/generations": Form.OPENAI, "/sdapi/v1/txt2img": Form.A1111}
# Their clients expect JSON where they accept anything.
IN_JSON: Final = (Form.STABILITY, Form.OPENAI, Form.A1111)


def read(
    body: bytes, accept: str, request_type: type[GenerationRequest], form: Form | None
) -> tuple[GenerationRequest, Form | None]:
    """Return a request and its form (None: ours). Raises ApiError 400 or 422, which names each wrong field."""
    body = body.removeprefix(b"\xef\xbb\xbf")
    try:
        fields = from_json(body)
        if isinstance(fields, dict):
            form = form or _form(fields, accept)
            if form is Form.JUMPSTART:
                fields.setdefault("format", accept.split(";")[1].strip())
            body = json.dumps(_ours(fields, form)).encode()
    except ValueError:
        pass  # The model says it better.
    try:
        return request_type.model_validate_json(body), form
    except ValidationError as error:
        raise invalid_request(error, (*request_type.model_fields, *ALIASES)) from None


def answer(form: Form | None, drawing: DrawnRequest, picture_format: PictureFormat, request_id: str) -> bytes:
    """Return the JSON answer in a form."""
    if form in (None, Form.DIFFUSERS):
        return drawing.json(picture_format, request_id)
    files = [base64.b64encode(drawing.file(i, picture_format)).decode() for i in range(len(drawing.pictures))]
    body: Any = files[0] if len(files) == 1 else files  # Hugging Face
    if form is Form.OPENAI:
        pictures = [{"b64_json": file} for file in files]
        body = {"created": int(time.time()), "output_format": picture_format, "data": pictures}
    elif form is Form.JUMPSTART:
        body = {"generated_images": files, "prompt": drawing.request.texts[0]}
    elif form is Form.A1111:
        info = json.dumps({"seed": drawing.seeds[0], "all_seeds": drawing.seeds, "sd_model_name": drawing.model})
        body = {"images": files, "parameters": drawing.request.model_dump(mode="json"), "info": info}
    elif form is Form.STABILITY:
        ends = ["CONTENT_FILTERED" if picture.flagged else "SUCCESS" for picture in drawing.pictures]
        drawn = zip(files, drawing.seeds, ends, strict=True)
        body = {"artifacts": [{"base64": file, "seed": seed, "finishReason": end} for file, seed, end in drawn]}
    return json.dumps(body).encode()


def _form(fields: dict[str, Any], accept: str) -> Form | None:
    if re.fullmatch(r"application/json; *(jpeg|png)", accept):
        return Form.JUMPSTART
    return next((form for form in Form if form.value & fields.keys()), None)


def _ours(fields: dict[str, Any], form: Form | None) -> dict[str, Any]:
    """Return the fields with names that the request's model knows; 2.0 is 2, as JSON Schema has it."""
    if form is Form.HUGGING_FACE and isinstance(fields.get("parameters"), dict):
        fields = fields.pop("parameters") | fields
    for name, value in fields.items():
        if isinstance(value, float) and value.is_integer():
            fields[name] = int(value)
        elif name.startswith(("sampler", "scheduler")) and isinstance(value, str):
            fields[name] = TABLES["samplers"].get(value.lower(), value.lower())
    if form is None:
        return fields
    if fields.get("seed") in ((-1, 0) if form is Form.STABILITY else (-1,)):
        del fields["seed"]  # There, it means any.
    if Form.DIFFUSERS.value & fields.keys():
        fields.pop("batch_size", None)  # How many to draw at once is the queue's matter.
    _take_apart(fields)
    return {name: value for name, value in fields.items() if not _asks_nothing(name, value)}


def _take_apart(fields: dict[str, Any]) -> None:
    match fields.pop("text_prompts", None):
        case [{"text": text, **rest}] if rest.keys() <= {"weight"}:
            fields["prompt"] = text
        case [{"text": text, **rest}, {"text": negative, "weight": weight}] if weight == -rest.get("weight", 1):
            fields |= {"prompt": text, "negative_prompt": negative}
        case None:
            pass
        case _:
            raise invalid_field("text_prompts", "one text, and at most a second one whose weight is minus the first's")
    size = fields.pop("size", None)
    if sides := re.fullmatch(r"(\d{1,5})x(\d{1,5})", str(size)):
        fields |= {"width": int(sides[1]), "height": int(sides[2])}
    elif size not in (None, "auto"):
        raise invalid_field("size", "WIDTHxHEIGHT in pixels, such as 512x512, or auto")


def _asks_nothing(name: str, value: Any) -> bool:
    if value is None or name in TABLES["passed_over"] or value in TABLES["harmless"].get(name, ()):
        return True
    return value in (False, 0, -1, "", [], {}) and name not in ALIASES and name not in GenerationRequest.model_fields
