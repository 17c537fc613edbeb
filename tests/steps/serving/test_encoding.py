import base64
import io
import json

import numpy as np
import pytest
from PIL import Image
from PIL.ExifTags import IFD

from steps.serving.encoding import DrawnRequest
from steps.serving.pictures import Picture, Shape
from steps.serving.schema import PictureFormat, request_type
from tests.steps.serving.conftest import ARGUMENTS

MODEL = "arn:aws:sagemaker:eu-west-1:123456789012:model-package/tiny/1"
SECRET = "a <secret> & \x00 prompt ☃ 😀"
PIXELS = np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)
FORMATS: tuple[PictureFormat, ...] = ("png", "jpeg", "webp")


def drawing(**fields: object) -> DrawnRequest:
    body = {"prompts": [SECRET, "b"], "negative_prompt": SECRET, **fields}
    request = request_type(ARGUMENTS).model_validate_json(json.dumps(body))
    pictures = (Picture(Image.fromarray(PIXELS), False, True), Picture(Image.fromarray(255 - PIXELS), True, False))
    return DrawnRequest(request, Shape(24, 16, 2, 3.0, "ddim"), (7, 8), pictures, MODEL, 0.5, 1.25)


def opened(file: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(file))
    image.load()
    return image


@pytest.mark.parametrize("form", FORMATS)
def test_a_picture_says_that_a_model_made_it_and_which(form: PictureFormat) -> None:
    file = drawing().file(0, form)
    image = opened(file)
    assert (image.format, image.size) == (form.upper(), (24, 16))
    for text in (b"trainedAlgorithmicMedia", MODEL.encode(), b"sd-pipeline"):
        assert text in file


def test_png_text_holds_the_settings() -> None:
    text = opened(drawing().file(1, "png")).text  # type: ignore[attr-defined]
    assert text["Software"] == "sd-pipeline"
    assert (text["Model"], text["Seed"], text["Steps"], text["Sampler"]) == (MODEL, "8", "2", "ddim")


@pytest.mark.parametrize("form", ["jpeg", "webp"])
def test_exif_holds_the_settings(form: PictureFormat) -> None:
    exif = opened(drawing().file(0, form)).getexif()
    assert exif[0x0131] == "sd-pipeline"
    assert exif[0x0110] == MODEL
    comment = exif.get_ifd(IFD.Exif)[0x9286]
    assert comment.startswith(b"ASCII\0\0\0")
    assert json.loads(comment[8:])["Seed"] == "7"


@pytest.mark.parametrize("form", FORMATS)
def test_prompts_are_in_a_picture_only_where_asked_for(form: PictureFormat) -> None:
    assert b"secret" not in drawing().file(0, form)
    assert b"secret" in drawing(embed_prompt=True).file(0, form)


def test_an_embedded_prompt_reads_back() -> None:
    text = opened(drawing(embed_prompt=True).file(0, "png")).text  # type: ignore[attr-defined]
    assert text["Prompt"] == SECRET.replace("\x00", "\ufffd")


@pytest.mark.parametrize("form", FORMATS)
def test_the_longest_prompt_fits_into_every_format(form: PictureFormat) -> None:
    longest = ARGUMENTS.model_copy(update={"max_prompt_characters": 20_000})
    body = {"prompt": "😀" * 20_000, "negative_prompt": "&" * 20_000, "embed_prompt": True}
    request = request_type(longest).model_validate_json(json.dumps(body))
    picture = Picture(Image.fromarray(PIXELS), False, False)
    opened(DrawnRequest(request, Shape(24, 16, 2, 3.0, "ddim"), (1,), (picture,), MODEL, 0.0, 0.0).file(0, form))


@pytest.mark.parametrize("form", FORMATS)
def test_the_same_request_gives_the_same_bytes(form: PictureFormat) -> None:
    assert drawing().file(0, form) == drawing().file(0, form)


def test_png_is_lossless_and_jpeg_nearly() -> None:
    assert np.array_equal(np.asarray(opened(drawing().file(0, "png"))), PIXELS)
    smooth = Image.linear_gradient("L").convert("RGB")
    picture = DrawnRequest(
        drawing().request, Shape(256, 256, 2, 3.0, "ddim"), (1,), (Picture(smooth, False, False),), MODEL, 0.0, 0.0
    )
    for form in ("jpeg", "webp"):
        difference = np.asarray(opened(picture.file(0, form))).astype(int) - np.asarray(smooth).astype(int)
        assert abs(difference).mean() < 2


def test_the_json_answer_lists_every_picture_with_its_seed_and_flags() -> None:
    answer = json.loads(drawing().json("png", "the id"))
    assert [(item["seed"], item["prompt_index"]) for item in answer["images"]] == [(7, 0), (8, 1)]
    assert [(item["flagged"], item["truncated"]) for item in answer["images"]] == [(False, True), (True, False)]
    assert np.array_equal(np.asarray(opened(base64.b64decode(answer["images"][1]["image"]))), 255 - PIXELS)
    assert answer["model"] == MODEL
    assert answer["settings"]["guidance_scale"] == 3.0
    assert (answer["queue_s"], answer["render_s"]) == (0.5, 1.25)
