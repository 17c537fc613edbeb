import json

import pytest

from steps.serving import media
from steps.serving.errors import ApiError
from steps.serving.schema import GenerationRequest, request_type
from tests.steps.serving.conftest import ARGUMENTS


def request(**fields: object) -> GenerationRequest:
    return request_type(ARGUMENTS).model_validate_json(json.dumps({"prompt": "a", **fields}))


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("*/*", "image/png"),
        ("image/*", "image/png"),
        ("image/webp", "image/webp"),
        ("image/jpg", "image/jpeg"),
        ("IMAGE/JPEG", "image/jpeg"),
        ("application/json", "application/json"),
        ("image/png;q=0.5, image/webp;q=0.9", "image/webp"),
        ("image/*;q=0.5, application/json", "application/json"),
        ("text/html, application/xhtml+xml, */*;q=0.8", "image/png"),
        ("image/png;q=0, */*", "image/jpeg"),
        ("image/png;q=nan, image/webp;q=0.1", "image/webp"),
        ("image/png;q=x, application/json;q=0.1", "application/json"),
    ],
)
def test_accept_decides_the_form_of_one_picture(accept: str, expected: str) -> None:
    assert media.choose(accept, request()) == expected


@pytest.mark.parametrize("accept", ["text/html", "image/gif", "*/*;q=0", ",", "application/json;q=0"])
def test_an_accept_that_cannot_be_met_is_refused(accept: str) -> None:
    with pytest.raises(ApiError) as caught:
        media.choose(accept, request(num_images=2))
    assert caught.value.status == 406


def test_several_pictures_come_as_json_only() -> None:
    assert media.choose("*/*", request(num_images=2)) == "application/json"
    with pytest.raises(ApiError, match="application/json"):
        media.choose("image/png", request(num_images=2))


def test_the_request_format_narrows_what_accept_allows() -> None:
    assert media.choose("image/*", request(format="webp")) == "image/webp"
    with pytest.raises(ApiError):
        media.choose("image/png", request(format="webp"))


def test_pictures_inside_json_have_the_format_of_the_request() -> None:
    assert media.picture_format("application/json", request(format="jpeg")) == "jpeg"
    assert media.picture_format("application/json", request()) == "png"
    assert media.picture_format("image/webp", request()) == "webp"


@pytest.mark.parametrize(
    "content_type",
    [
        *("application/json", "application/json; charset=utf-8", 'Application/JSON;charset="UTF-8"'),
        *(None, "", "application/octet-stream", "binary/octet-stream", "application/x-text"),
    ],
)
def test_json_in_utf8_is_taken_and_so_is_what_says_nothing(content_type: str | None) -> None:
    media.check_content_type(content_type, None)


@pytest.mark.parametrize(
    ("content_type", "encoding"),
    [
        ("text/plain", None),
        ("application/x-www-form-urlencoded", None),
        ("application/json; charset=latin-1", None),
        ("application/json", "gzip"),
    ],
)
def test_any_other_body_is_refused(content_type: str, encoding: str | None) -> None:
    with pytest.raises(ApiError) as caught:
        media.check_content_type(content_type, encoding)
    assert caught.value.status == 415
