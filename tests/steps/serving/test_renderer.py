import copy
import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from steps.errors import StepError
from steps.model.digest import folder_digest, write_checksums
from steps.model.families import load_pipeline
from steps.model.pretrained import sampler
from steps.serving.errors import AbandonedError, RenderError
from steps.serving.pictures import Picture, PictureJob, Shape
from steps.serving.renderer import PipelineRenderer, load_renderer
from tests.steps.serving.conftest import ARGUMENTS

# diffusers' schedulers with numpy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SAMPLERS = ("ddim", "dpm++", "euler")


def never() -> bool:
    return False


def shape(name: str = "dpm++", width_px: int = 32, height_px: int = 32, steps: int = 3, scale: float = 3.0) -> Shape:
    return Shape(width_px, height_px, steps, scale, name)


def pixels(picture: Picture | Image.Image) -> np.ndarray:
    image = picture.image if isinstance(picture, Picture) else picture
    return np.asarray(image).astype(int)


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("scale", [0.0, 5.0])
def test_pictures_are_those_of_the_bare_pipeline(
    renderer: PipelineRenderer, model_dir: Path, name: str, scale: float
) -> None:
    pipeline: Any = load_pipeline(model_dir, torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = sampler(name, pipeline.scheduler.config)
    expected = pipeline(
        "red dot",
        negative_prompt="blue",
        generator=torch.Generator("cpu").manual_seed(11),
        num_inference_steps=3,
        guidance_scale=scale,
        width=40,
        height=32,
    ).images[0]
    job = PictureJob("red dot", "blue", 11)
    (picture,) = renderer.render(shape(name, width_px=40, scale=scale), [job], never)
    # Row by row is another order of summation: a level may be rounded the other way.
    assert abs(pixels(picture) - pixels(expected)).max() <= 1
    assert (pixels(picture) != pixels(expected)).mean() < 0.01


JOBS = st.lists(
    st.builds(PictureJob, st.sampled_from(["a", "b c", "red"]), st.sampled_from(["", "d"]), st.integers(0, 9)),
    min_size=2,
    max_size=6,
)
SIDES = st.sampled_from([8, 24, 32, 40])


@settings(max_examples=12, deadline=None)
@given(jobs=JOBS, name=st.sampled_from(SAMPLERS), scale=st.sampled_from([0.0, 1.0, 4.0]), width=SIDES, height=SIDES)
def test_a_picture_is_the_same_bit_for_bit_whatever_it_was_batched_with(
    renderer: PipelineRenderer, jobs: list[PictureJob], name: str, scale: float, width: int, height: int
) -> None:
    same = shape(name, width, height, 2, scale)
    together = renderer.render(same, jobs, never)
    for job, picture in zip(jobs, together, strict=True):
        (alone,) = renderer.render(same, [job], never)
        assert picture.image.tobytes() == alone.image.tobytes()


def test_seed_and_prompt_make_the_picture(renderer: PipelineRenderer) -> None:
    jobs = [PictureJob("a", "", 1), PictureJob("a", "", 2), PictureJob("b", "", 1), PictureJob("a", "", 1)]
    first, other_seed, other_prompt, again = (p.image.tobytes() for p in renderer.render(shape(), jobs, never))
    assert first == again
    assert len({first, other_seed, other_prompt}) == 3


def test_a_cut_prompt_is_reported(renderer: PipelineRenderer) -> None:
    jobs = [PictureJob("abc", "", 1), PictureJob("a" * 30, "", 1)]
    assert [picture.truncated for picture in renderer.render(shape(), jobs, never)] == [False, True]


def test_a_cut_negative_prompt_is_reported_where_guidance_reads_it(renderer: PipelineRenderer) -> None:
    jobs = [PictureJob("abc", "a" * 30, 1), PictureJob("abc", "d", 1)]
    assert [one.negative_truncated for one in renderer.render(shape(), jobs, never)] == [True, False]
    assert [one.negative_truncated for one in renderer.render(shape(scale=1.0), jobs, never)] == [False, False]


def long(scale: float = 3.0, steps: int = 2) -> Shape:
    return dataclasses.replace(shape(steps=steps, scale=scale), long_prompts=True)


def test_a_long_prompt_is_drawn_as_the_bare_pipeline_draws_its_parts(
    renderer: PipelineRenderer, model_dir: Path
) -> None:
    pipeline: Any = load_pipeline(model_dir, torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = sampler("dpm++", pipeline.scheduler.config)
    wanted, unwanted = (
        torch.cat([pipeline.encode_prompt(text, pipeline.device, 1, False)[0] for text in texts], dim=1)
        for texts in (("a b c d e f", "g h"), ("x", ""))
    )
    (expected,) = pipeline(
        prompt_embeds=wanted,
        negative_prompt_embeds=unwanted,
        generator=torch.Generator("cpu").manual_seed(11),
        num_inference_steps=2,
        guidance_scale=3.0,
        width=32,
        height=32,
    ).images
    (picture,) = renderer.render(long(), [PictureJob("a b c d e f g h", "x", 11)], never)
    assert abs(pixels(picture) - pixels(expected)).max() <= 1
    assert (picture.truncated, picture.negative_truncated) == (False, False)
    (cut,) = renderer.render(shape(steps=2), [PictureJob("a b c d e f g h", "x", 11)], never)
    assert cut.truncated and picture.image.tobytes() != cut.image.tobytes()


LONG_TEXTS = st.sampled_from(["", "a", "(b:1.4) c", "a" * 7, "[a] BREAK (b)", "abc " * 5, "z" * 50])
LONG_JOBS = st.lists(st.builds(PictureJob, LONG_TEXTS, LONG_TEXTS, st.integers(0, 9)), min_size=2, max_size=5)


@settings(max_examples=10, deadline=None)
@given(jobs=LONG_JOBS, scale=st.sampled_from([1.0, 4.0]))
def test_long_prompts_of_any_lengths_are_drawn_together_as_they_are_alone(
    renderer: PipelineRenderer, jobs: list[PictureJob], scale: float
) -> None:
    for job, picture in zip(jobs, renderer.render(long(scale), jobs, never), strict=True):
        (alone,) = renderer.render(long(scale), [job], never)
        assert picture.image.tobytes() == alone.image.tobytes()
        assert picture.truncated == alone.truncated == ("z" in job.prompt)
        assert picture.negative_truncated == ("z" in job.negative_prompt and scale > 1)


def test_a_short_prompt_without_weights_is_the_same_picture_either_way(renderer: PipelineRenderer) -> None:
    jobs = [PictureJob("abc", "d", 3), PictureJob("", "", 4)]
    either = (renderer.render(which, jobs, never) for which in (shape(steps=2), long()))
    assert all(one.image.tobytes() == two.image.tobytes() for one, two in zip(*either, strict=True))


def test_weights_change_the_picture_and_order_their_words(renderer: PipelineRenderer) -> None:
    texts = ("a b", "(a:1.0) b", "(a:1.5) b", "a (b:1.5)", "(a:0) b")
    pictures = renderer.render(long(), [PictureJob(text, "", 1) for text in texts], never)
    drawn = [one.image.tobytes() for one in pictures]
    assert drawn[0] == drawn[1] and len(set(drawn)) == 4


def test_the_compiled_network_draws_no_prompt_that_is_longer_than_what_it_was_compiled_for(
    model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths: list[int] = []

    def compile_unet(unet: Any) -> Any:
        unet.register_forward_pre_hook(
            lambda module, arguments, named: lengths.append(named["encoder_hidden_states"].shape[1]), with_kwargs=True
        )
        return unet

    monkeypatch.setattr(torch, "compile", lambda unet: compile_unet(copy.deepcopy(unet)))
    drawer = load_renderer(model_dir, ARGUMENTS.model_copy(update={"compile": True}))
    drawer.render(long(), [PictureJob("abc", "", 1), PictureJob("a" * 9, "", 1)], never)
    assert set(lengths) == {8}


def test_a_batch_that_nobody_waits_for_is_given_up(renderer: PipelineRenderer) -> None:
    asked: list[int] = []

    def abandoned() -> bool:
        asked.append(1)
        return len(asked) == 2

    with pytest.raises(AbandonedError):
        renderer.render(shape(steps=4), [PictureJob("a", "", 1)], abandoned)
    assert len(asked) == 2


def test_undefined_pixels_are_no_picture(model_dir: Path) -> None:
    broken = load_renderer(model_dir, ARGUMENTS)
    with torch.no_grad():
        broken._pipeline.vae.decoder.conv_out.weight.fill_(float("nan"))
    with pytest.raises(RenderError, match="undefined pixels"):
        broken.render(shape(), [PictureJob("a", "", 1)], never)
    with pytest.raises(RenderError):
        broken.self_test()


def test_warming_up_finds_that_batches_do_not_matter(renderer: PipelineRenderer) -> None:
    assert renderer.warm_up().deviation == 0.0


def test_where_batches_matter_exact_pictures_are_drawn_one_by_one(
    model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("steps.serving.renderer.deviation", lambda draw, noise, sizes: 1e-6)
    exact = load_renderer(model_dir, ARGUMENTS.model_copy(update={"exact_batches": True}))
    fast = load_renderer(model_dir, ARGUMENTS)
    assert exact.warm_up().deviation == fast.warm_up().deviation == 1e-6
    assert (exact.max_batch_size, fast.max_batch_size) == (1, 4)


def test_pictures_carry_the_digest_of_the_folder_unless_a_name_is_given(model_dir: Path) -> None:
    assert load_renderer(model_dir, ARGUMENTS).identity == ARGUMENTS.model_name
    unnamed = load_renderer(model_dir, ARGUMENTS.model_copy(update={"model_name": ""}))
    assert unnamed.identity == f"sha256:{folder_digest(model_dir)}"


def test_bfloat16_and_channels_last_draw_pictures_too(model_dir: Path) -> None:
    half = load_renderer(model_dir, ARGUMENTS.model_copy(update={"precision": "bfloat16", "channels_last": True}))
    full = load_renderer(model_dir, ARGUMENTS)
    job = PictureJob("a", "", 3)
    (rough,), (fine,) = (drawer.render(shape(), [job], never) for drawer in (half, full))
    # The same noise in another precision: nearly the same picture.
    assert abs(pixels(rough) - pixels(fine)).mean() < 8


def test_the_default_size_alone_is_drawn_by_the_compiled_unet(model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[int] = []

    def compile_unet(unet: Any) -> Any:
        unet.register_forward_pre_hook(lambda module, arguments: rows.append(len(arguments[0])))
        return unet

    monkeypatch.setattr(torch, "compile", lambda unet: compile_unet(copy.deepcopy(unet)))
    drawer = load_renderer(model_dir, ARGUMENTS.model_copy(update={"compile": True}))
    drawer.warm_up()
    # Guidance makes two rows of each picture: every batch size was seen before the first request.
    assert {2, 4, 8} <= set(rows)
    rows.clear()
    for other in (shape(width_px=40), shape(scale=1.0)):
        drawer.render(other, [PictureJob("a", "", 1)], never)
    assert rows == []
    drawer.render(shape(steps=3), [PictureJob("a", "", 1)], never)
    assert rows == [2, 2, 2]


def test_a_model_with_a_flipped_bit_does_not_serve_and_its_file_is_named(model_dir: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(model_dir, tmp_path / "model")
    write_checksums(folder)
    assert load_renderer(folder, ARGUMENTS)
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-100] ^= 1
    weights.write_bytes(content)
    with pytest.raises(StepError, match=r"unet/diffusion_pytorch_model\.safetensors: damaged"):
        load_renderer(folder, ARGUMENTS)


def test_an_endpoint_on_a_gpu_host_never_serves_from_its_cpu(model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SD_PIPELINE_INSTANCE_TYPE", "ml.g5.2xlarge")
    with pytest.raises(StepError, match=r"ml\.g5\.2xlarge: it has GPUs, and torch cannot use them: driver"):
        load_renderer(model_dir, ARGUMENTS)


def test_a_folder_without_a_pipeline_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(StepError, match=r"model_index\.json"):
        load_renderer(tmp_path, ARGUMENTS)
