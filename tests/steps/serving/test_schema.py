import json

import pytest
from pydantic import ValidationError

from params.programs import ServeArguments
from steps.serving.errors import invalid_request
from steps.serving.schema import MAX_SEED, GenerationRequest, request_type
from tests.steps.serving.conftest import ARGUMENTS

REQUEST = request_type(ARGUMENTS)


def parse(**fields: object) -> GenerationRequest:
    return REQUEST.model_validate_json(json.dumps({"prompt": "a", **fields}))


def test_what_a_request_leaves_out_comes_from_the_endpoint_settings() -> None:
    request = parse()
    assert (request.steps, request.guidance_scale, request.width, request.height) == (2, 3.0, 32, 32)
    assert (request.sampler, request.seed, request.num_images, request.format) == ("dpm++", None, 1, None)
    assert request.embed_prompt is False


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("prompt", "a" * 101),
        ("prompt", 3),
        ("negative_prompt", "a" * 101),
        ("seed", -1),
        ("seed", MAX_SEED + 1),
        ("seed", 1.5),
        ("seed", True),
        ("steps", 0),
        ("steps", 5),
        ("steps", "2"),
        ("guidance_scale", -0.1),
        ("guidance_scale", 30.5),
        ("width", 0),
        ("width", 36),
        ("width", 56),
        ("height", 4),
        ("height", -32),
        ("sampler", "ddpm"),
        ("num_images", 0),
        ("num_images", 4),
        ("format", "gif"),
        ("embed_prompt", "yes"),
        ("stepz", 2),
    ],
)
def test_a_bad_field_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(ValidationError) as caught:
        parse(**{field: value})
    error = invalid_request(caught.value)
    assert error.status == 422
    assert [item["field"] for item in error.fields] == [field]
    assert error.message.startswith(f"{field}: ")


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_a_guidance_scale_that_is_no_number_is_refused(text: str) -> None:
    with pytest.raises(ValidationError):
        REQUEST.model_validate_json(f'{{"prompt": "a", "guidance_scale": {text}}}')


@pytest.mark.parametrize("body", ['{"negative_prompt": "a"}', '{"prompt": "a", "prompts": ["b"]}'])
def test_exactly_one_of_prompt_and_prompts_is_needed(body: str) -> None:
    with pytest.raises(ValidationError) as caught:
        REQUEST.model_validate_json(body)
    assert invalid_request(caught.value).fields[0]["field"] == "prompt"


@pytest.mark.parametrize(
    ("fields", "named"),
    [({"prompts": ["a"] * 4}, "prompts"), ({"prompts": ["a", "b"], "num_images": 2}, "num_images")],
)
def test_pictures_are_limited_over_all_prompts(fields: dict[str, object], named: str) -> None:
    with pytest.raises(ValidationError) as caught:
        REQUEST.model_validate_json(json.dumps(fields))
    assert invalid_request(caught.value).fields[0]["field"] == named


def test_an_overlong_prompt_in_a_list_is_named_by_its_place() -> None:
    with pytest.raises(ValidationError) as caught:
        REQUEST.model_validate_json(json.dumps({"prompts": ["a", "b" * 101]}))
    assert invalid_request(caught.value).fields[0]["field"] == "prompts.1"


@pytest.mark.parametrize("body", ["", "{", "[1", '"\\ud800"', '{"prompt": "\ud800"}'])
def test_what_is_not_json_is_a_bad_request(body: str) -> None:
    with pytest.raises(ValidationError) as caught:
        REQUEST.model_validate_json(body.encode("utf-8", "surrogatepass"))
    assert invalid_request(caught.value).status == 400


def test_error_messages_do_not_repeat_the_request() -> None:
    with pytest.raises(ValidationError) as caught:
        parse(prompt="secret" * 20, sampler="secret")
    assert "secret" not in json.dumps(invalid_request(caught.value).body())


def test_a_thousand_wrong_fields_make_a_short_answer() -> None:
    with pytest.raises(ValidationError) as caught:
        parse(**{f"field{index}": 1 for index in range(1000)})
    assert len(invalid_request(caught.value).fields) == 20


def test_each_picture_has_its_own_seed_and_prompt() -> None:
    request = REQUEST.model_validate_json('{"prompts": ["a"], "num_images": 3, "seed": 7}')
    assert request.texts == ("a", "a", "a")
    assert request.seeds(MAX_SEED) == (MAX_SEED, 0, 1)


def test_the_json_schema_shows_the_endpoint_bounds() -> None:
    schema = request_type(ServeArguments(max_inference_steps=77)).model_json_schema()
    assert schema["properties"]["steps"]["maximum"] == 77
    assert schema["additionalProperties"] is False
