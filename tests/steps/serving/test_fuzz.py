"""No request makes the endpoint fail: random bodies and headers through the whole application and a real pipeline."""

import io
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image
from starlette.testclient import TestClient

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

TEXT = st.text(st.characters(codec="utf-8"), max_size=110)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=6,
)
NEARLY_RIGHT: dict[str, st.SearchStrategy[Any]] = {
    "prompt": TEXT,
    "prompts": st.lists(TEXT, max_size=4),
    "negative_prompt": TEXT,
    "seed": st.integers(-1, 2**32),
    "steps": st.integers(0, 5),
    "guidance_scale": st.floats(-1, 31) | st.integers(0, 30),
    "width": st.integers(0, 7).map(lambda count: 8 * count) | st.integers(0, 60),
    "height": st.integers(0, 7).map(lambda count: 8 * count),
    "sampler": st.sampled_from(["ddim", "dpm++", "euler", "lms"]),
    "num_images": st.integers(0, 4),
    "format": st.sampled_from(["png", "jpeg", "webp", "gif", None]),
    "embed_prompt": st.booleans(),
}
FIELDS = st.fixed_dictionaries(
    {},
    optional={name: strategy | ANYTHING if name != "prompt" else strategy for name, strategy in NEARLY_RIGHT.items()},
)
VALID = st.fixed_dictionaries(
    {"prompt": st.text(st.characters(codec="utf-8"), max_size=100)},
    optional={
        "seed": st.integers(0, 2**32 - 1),
        "steps": st.integers(1, 2),
        "guidance_scale": st.floats(0, 30),
        "width": st.sampled_from([8, 24, 48]),
        "height": st.sampled_from([8, 32, 48]),
        "sampler": st.sampled_from(["ddim", "dpm++", "euler"]),
        "num_images": st.integers(1, 3),
        "embed_prompt": st.booleans(),
    },
)
ACCEPTS = st.sampled_from(["*/*", "image/png", "image/webp, */*;q=0.1", "application/json", "text/html", ";;,q="])
KNOWN_STATUSES = {200, 400, 406, 413, 415, 422}
PROFILE = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


def check(answer: Any) -> None:
    """An answer is a picture, a list of pictures, or an error that says why."""
    assert answer.status_code in KNOWN_STATUSES, answer.text
    kind = answer.headers["content-type"]
    if kind.startswith("image/"):
        Image.open(io.BytesIO(answer.content)).load()
    elif answer.status_code == 200:
        assert answer.json()["images"]
    else:
        assert answer.json()["error"]["message"]


@settings(PROFILE, max_examples=150)
@given(fields=FIELDS, accept=ACCEPTS)
@example(fields={"prompt": "\x00\x1b\u2028"}, accept="*/*")
@example(fields={"prompt": "a", "seed": 2**64}, accept="*/*")
@example(fields={"prompt": "a", "guidance_scale": 1e308}, accept="*/*")
def test_any_json_gets_a_picture_or_a_reason(endpoint: TestClient, fields: dict[str, Any], accept: str) -> None:
    headers = {"Content-Type": "application/json", "Accept": accept}
    check(endpoint.post("/invocations", content=json.dumps(fields), headers=headers))


@settings(PROFILE, max_examples=60)
@given(fields=VALID)
def test_every_valid_request_is_drawn(endpoint: TestClient, fields: dict[str, Any]) -> None:
    answer = endpoint.post("/invocations", json=fields)
    assert answer.status_code == 200, answer.text
    check(answer)


@settings(PROFILE, max_examples=100)
@given(body=st.binary(max_size=3000), kind=st.sampled_from(["application/json", "application/json;", "x", ""]))
def test_any_bytes_get_a_reason(endpoint: TestClient, body: bytes, kind: str) -> None:
    answer = endpoint.post("/invocations", content=body, headers={"Content-Type": kind})
    check(answer)
    assert answer.status_code != 200
