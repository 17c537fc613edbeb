"""What clients of other endpoints send is drawn, and answered as they expect it."""

import base64
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import InferenceClient, constants
from PIL import Image
from starlette.testclient import TestClient

from steps.serving.schema import ALIASES
from tests.steps.serving.conftest import Serve
from tests.steps.serving.fakes import FakeRenderer

ROOT = Path(__file__).parents[3]
# Every field of A1111's request with its default, and what its users set.
A1111 = {
    "prompt": "a",
    "negative_prompt": "b",
    "styles": [],
    "seed": -1,
    "subseed": -1,
    "subseed_strength": 0,
    "seed_resize_from_h": -1,
    "seed_resize_from_w": -1,
    "sampler_name": "DPM++ 2M",
    "scheduler": "Automatic",
    "batch_size": 2,
    "n_iter": 1,
    "steps": 3,
    "cfg_scale": 7.0,
    "width": 40,
    "height": 32,
    "restore_faces": False,
    "tiling": False,
    "do_not_save_samples": False,
    "do_not_save_grid": False,
    "eta": None,
    "denoising_strength": 0.7,
    "s_min_uncond": 0,
    "s_churn": 0,
    "s_tmax": 0,
    "s_tmin": 0,
    "s_noise": 1,
    "override_settings": {},
    "override_settings_restore_afterwards": True,
    "enable_hr": False,
    "hr_scale": 2,
    "hr_upscaler": "Latent",
    "script_name": None,
    "script_args": [],
    "send_images": True,
    "save_images": False,
    "alwayson_scripts": {},
}


@pytest.fixture(name="grey", scope="module")
def grey_fixture(serve: Serve) -> Iterator[TestClient]:
    with serve(FakeRenderer().load, max_body_bytes=65_536, queue_size=32) as (client, _):
        yield client


def ask(client: TestClient, fields: object, path: str = "/invocations", **headers: str) -> Any:
    return client.post(path, content=json.dumps(fields), headers={"Content-Type": "application/json", **headers})


def picture(text: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(text)))


def test_diffusers_names_mean_ours(grey: TestClient) -> None:
    fields = {"prompt": "a", "num_inference_steps": 3, "num_images_per_prompt": 2, "guidance_scale": 2, "seed": 4}
    scheduler = {"scheduler": "EulerDiscreteScheduler", "eta": 0.0, "output_type": "pil", "batch_size": 1}
    answer = ask(grey, fields | scheduler, Accept="application/json").json()
    assert [image["seed"] for image in answer["images"]] == [4, 5]
    drawn_with = {name: answer["settings"][name] for name in ("steps", "guidance_scale", "sampler")}
    assert drawn_with == {"steps": 3, "guidance_scale": 2.0, "sampler": "euler"}


def test_jumpstart_gets_its_jpegs_and_the_prompt(grey: TestClient) -> None:
    fields = {"prompt": "a", "num_images_per_prompt": 2, "num_inference_steps": 2, "guidance_scale": 7.5, "seed": 1}
    answer = ask(grey, fields, Accept="application/json;jpeg").json()
    assert (answer["prompt"], len(answer["generated_images"])) == ("a", 2)
    assert picture(answer["generated_images"][0]).format == "JPEG"


def test_hugging_faces_toolkit_gets_one_picture_in_json(grey: TestClient) -> None:
    parameters = {"num_inference_steps": 3, "negative_prompt": "b", "width": 40, "height": None, "guidance_scale": 4}
    answer = ask(grey, {"inputs": "a", "parameters": parameters}, Accept="application/json")
    assert picture(answer.json()).size == (40, 32)
    wrong = ask(grey, {"inputs": "a", "parameters": {"num_inference_steps": 99}}).json()["error"]["fields"]
    assert wrong[0]["field"] == "num_inference_steps"


def test_hugging_faces_own_client_draws(grey_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    client = InferenceClient(model=f"{grey_url}/invocations", token="none")
    drawn = client.text_to_image("a", num_inference_steps=2, guidance_scale=3.0, width=40, height=48, seed=9)
    assert (drawn.size, drawn.getpixel((0, 0))) == ((40, 48), (9, 9, 9))


def test_openais_clients_find_their_path_and_their_form(grey: TestClient) -> None:
    fields = {"model": "dall-e-2", "prompt": "a", "n": 2, "size": "40x32", "response_format": "b64_json", "user": "u"}
    answer = ask(grey, {**fields, "quality": "standard"}, "/v1/images/generations").json()
    assert [picture(one["b64_json"]).size for one in answer["data"]] == [(40, 32), (40, 32)]
    assert answer["created"] > 1_700_000_000
    jpeg = ask(grey, {"prompt": "a", "output_format": "jpeg", "size": "auto"}, "/v1/images/generations").json()
    assert (picture(jpeg["data"][0]["b64_json"]).format, jpeg["output_format"]) == ("JPEG", "jpeg")


@pytest.mark.parametrize("path", ["/invocations", "/sdapi/v1/txt2img"])
def test_a1111s_whole_request_is_drawn(grey: TestClient, path: str) -> None:
    answer = ask(grey, A1111, path).json()
    assert [picture(image).size for image in answer["images"]] == [(40, 32), (40, 32)]
    assert (answer["parameters"]["sampler"], answer["parameters"]["steps"]) == ("dpm++", 3)
    first, second = json.loads(answer["info"])["all_seeds"]
    assert second == (first + 1) % 2**32


def test_a1111s_clients_have_weights_and_long_prompts_without_asking_and_others_have_not(grey: TestClient) -> None:
    assert ask(grey, A1111).json()["parameters"]["long_prompts"] is True
    assert ask(grey, {**A1111, "long_prompts": False}).json()["parameters"]["long_prompts"] is False
    for fields in ({"prompt": "a"}, {"prompt": "a", "num_inference_steps": 2}):
        answer = ask(grey, fields, Accept="application/json").json()
        assert answer["settings"]["long_prompts"] is False


def test_stabilitys_prompts_are_taken_apart(grey: TestClient) -> None:
    prompts = [{"text": "a", "weight": 1}, {"text": "b", "weight": -1.0}]
    fields = {"text_prompts": prompts, "cfg_scale": 7, "samples": 2, "steps": 2, "sampler": "K_DPMPP_2M", "seed": 5}
    answer = ask(grey, {**fields, "style_preset": None, "clip_guidance_preset": "NONE"}).json()
    assert [artifact["seed"] for artifact in answer["artifacts"]] == [5, 6]
    assert answer["artifacts"][0]["finishReason"] == "SUCCESS"
    assert picture(answer["artifacts"][0]["base64"]).size == (32, 32)
    assert ask(grey, {**fields, "seed": 0}).json()["artifacts"][0]["seed"] != 0  # there, 0 is any


@pytest.mark.parametrize("kind", [None, "application/octet-stream", "binary/octet-stream", "application/json;jpeg"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_sagemakers_own_clients_need_to_say_nothing_of_the_type(
    grey: TestClient, kind: str | None, mark: bytes
) -> None:
    headers = {"Content-Type": kind} if kind else {}
    answer = grey.post("/invocations", content=mark + b'{"prompt": "a", "sampler": "DDIM"}', headers=headers)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")


@pytest.mark.parametrize(
    ("fields", "field", "said"),
    [
        ({"prompt": "a", "stepz": 2}, "stepz", "did you mean 'steps'?"),
        ({"prompt": "a", "num_inference_step": 2}, "num_inference_step", "did you mean 'num_inference_steps'?"),
        ({"prompt": "a", "zzzz": 2}, "zzzz", "unknown field"),
        ({"prompt": "a", "steps": 2, "num_inference_steps": 3}, "num_inference_steps", "by another name"),
        ({"prompt": "a", "n": 1, "quality": "hd"}, "quality", "unknown field"),
        ({"prompt": "a", "n": 1, "response_format": "url"}, "response_format", "unknown field"),
        ({"prompt": "a", "size": "big"}, "size", "WIDTHxHEIGHT"),
        ({"prompt": "a", "size": "4096x32"}, "width", "less than or equal to 48"),
        ({"inputs": "a", "parameters": [1]}, "parameters", "an object"),
        ({"prompt": "a", "sampler_name": "Euler a"}, "sampler_name", "'ddim', 'dpm++' or 'euler'"),
        ({**A1111, "enable_hr": True}, "enable_hr", "unknown field"),
        ({**A1111, "n_iter": 2}, "n_iter", "unknown field"),
        ({"text_prompts": [{"text": "a"}, {"text": "b"}]}, "text_prompts", "one text"),
        ({"text_prompts": "a"}, "text_prompts", "one text"),
        ({"prompt": "a", "seed": -1}, "seed", "greater than or equal to 0"),
    ],
)
def test_what_cannot_be_drawn_as_asked_is_refused_by_its_name(
    grey: TestClient, fields: dict[str, Any], field: str, said: str
) -> None:
    answer = ask(grey, fields)
    assert answer.status_code == 422
    (wrong,) = answer.json()["error"]["fields"]
    assert wrong["field"] == field
    assert said in wrong["message"]


def test_a_whole_number_with_a_point_is_one(grey: TestClient) -> None:
    assert ask(grey, {"prompt": "a", "steps": 2.0}).status_code == 200
    assert ask(grey, {"prompt": "a", "steps": 2.5}).status_code == 422


def test_the_page_has_the_table_of_the_code() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.+?) \| (.+?) \|$", (ROOT / "docs" / "serving.md").read_text(), re.MULTILINE)
    assert {theirs: (ours.replace("`", ""), whose) for theirs, ours, whose in rows} == {
        theirs: tuple(meant) for theirs, meant in ALIASES.items()
    }
