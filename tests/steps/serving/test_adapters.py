"""Adapters side by side: each request has its own, exactly as if it were alone."""

import io
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model_state_dict
from PIL import Image

from params.layout import ADAPTER_FILE
from steps.errors import StepError
from steps.model.adapters import save_adapter, write_kohya
from steps.model.families import load_pipeline
from steps.model.pretrained import sampler
from steps.serving.batch_queue import BatchQueue, Ticket
from steps.serving.pictures import PictureJob, Shape
from steps.serving.renderer import PipelineRenderer, load_renderer
from steps.training.lora import TEXT_TARGETS
from tests.steps.data import s3_server
from tests.steps.serving.conftest import ARGUMENTS, Serve
from tests.steps.serving.fakes import FakeRenderer
from tests.steps.serving.test_renderer import never, pixels

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

BASE = Shape(32, 32, 2, 3.0, "dpm++")
UNET_TARGETS = ["to_q", "to_k", "to_v", "to_out.0"]
JOBS = [PictureJob(text, "", seed) for seed, text in enumerate(("a", "b c", "red"))]


def with_adapter(name: str, scale: float = 1.0) -> Shape:
    return Shape(32, 32, 2, 3.0, "dpm++", name, scale)


def write_adapter(model: Path, folder: Path, seed: int, texts: bool) -> None:
    """Write random matrices that change the picture."""
    pipeline: Any = load_pipeline(model, torch.float32)
    torch.manual_seed(seed)
    parts = {"unet": UNET_TARGETS} | ({"text_encoder": list(TEXT_TARGETS)} if texts else {})
    tensors: dict[str, Any] = {"unet": {}, "text_encoder": {}}
    for part, targets in parts.items():
        model_part = getattr(pipeline, part)
        model_part.add_adapter(LoraConfig(r=2, lora_alpha=2, target_modules=targets))
        for key, value in get_peft_model_state_dict(model_part).items():
            tensors[part][key] = torch.randn_like(value) * 0.3
    save_adapter(folder, tensors["unet"], tensors["text_encoder"])


@pytest.fixture(name="adapted", scope="module")
def adapted_fixture(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with two adapters; one also changes the text encoder."""
    folder = tmp_path_factory.mktemp("adapted") / "model"
    shutil.copytree(model_dir, folder)
    write_adapter(model_dir, folder / "adapters" / "oil", 1, texts=True)
    write_adapter(model_dir, folder / "adapters" / "ink", 2, texts=False)
    return folder


@pytest.fixture(name="painter", scope="module")
def painter_fixture(adapted: Path) -> PipelineRenderer:
    return load_renderer(adapted, ARGUMENTS)


def drawn(renderer: PipelineRenderer, shape: Shape, jobs: list[PictureJob]) -> list[Any]:
    return [pixels(picture) for picture in renderer.render(shape, jobs, never)]


def test_a_picture_does_not_depend_on_what_was_drawn_before_or_beside_it(
    painter: PipelineRenderer, model_dir: Path
) -> None:
    assert painter.adapters == ("ink", "oil")
    shapes = (BASE, with_adapter("oil"), with_adapter("ink"), with_adapter("oil", 0.5))
    alone = [[drawn(painter, shape, [job])[0] for job in JOBS] for shape in shapes]
    for shape, pictures in zip(reversed(shapes), reversed(alone), strict=True):
        assert all(map(np.array_equal, drawn(painter, shape, JOBS), pictures))
    assert all(map(np.array_equal, alone[0], drawn(load_renderer(model_dir, ARGUMENTS), BASE, JOBS)))
    for number, one in enumerate(alone):
        assert not any(np.array_equal(one[0], other[0]) for other in alone[number + 1 :])


@pytest.mark.parametrize("name", ["oil", "ink"])
def test_an_adapter_draws_what_the_bare_pipeline_draws_with_it(
    painter: PipelineRenderer, adapted: Path, name: str
) -> None:
    pipeline: Any = load_pipeline(adapted, torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.load_lora_weights(adapted / "adapters" / name, weight_name=ADAPTER_FILE)
    pipeline.scheduler = sampler("dpm++", pipeline.scheduler.config)
    seed = torch.Generator("cpu").manual_seed(0)
    expected = pipeline("a", generator=seed, num_inference_steps=2, guidance_scale=3.0, width=32, height=32).images[0]
    assert abs(drawn(painter, with_adapter(name), JOBS[:1])[0] - pixels(expected)).max() <= 1


def test_exact_batches_are_measured_with_every_adapter(adapted: Path) -> None:
    renderer = load_renderer(adapted, ARGUMENTS.model_copy(update={"exact_batches": True}))
    assert renderer.warm_up().deviation == 0.0
    assert renderer.max_batch_size == ARGUMENTS.max_batch_size


def test_requests_with_different_adapters_never_share_a_batch() -> None:
    queue = BatchQueue(10, 4, 0.0)
    shapes = [BASE, with_adapter("ink"), BASE, with_adapter("ink", 0.5), with_adapter("ink")]
    for shape in shapes:
        queue.submit(Ticket(shape, JOBS[:1], float("inf")))
    batches = [queue.next_batch() for _ in range(3)]
    assert [[slot.ticket.shape for slot in batch] for batch in batches] == [
        [BASE, BASE],
        [with_adapter("ink")] * 2,
        [with_adapter("ink", 0.5)],
    ]


def test_an_unknown_adapter_is_refused_with_the_names_there_are(serve: Serve) -> None:
    with serve(FakeRenderer().load) as (client, _):
        answer = client.post("/invocations", json={"prompt": "a", "adapter": "chalk"})
        assert answer.status_code == 422
        error = answer.json()["error"]
        assert error["message"] == "adapter: unknown; this endpoint's adapters: ink, oil"
        assert error["fields"][0]["field"] == "adapter"


def test_the_picture_and_the_answer_name_the_adapter(serve: Serve) -> None:
    with serve(FakeRenderer().load, adapter="oil") as (client, _):
        png = client.post("/invocations", json={"prompt": "a", "adapter": "ink", "adapter_scale": 0.5})
        image: Any = Image.open(io.BytesIO(png.content))
        assert (image.text["Adapter"], image.text["Adapter scale"]) == ("ink", "0.5")
        json = {"Accept": "application/json"}
        settings = client.post("/invocations", json={"prompt": "a"}, headers=json).json()["settings"]
        assert (settings["adapter"], settings["adapter_scale"]) == ("oil", 1.0)
        plain = client.post("/invocations", json={"prompt": "a", "adapter": "", "adapter_scale": 0.5}, headers=json)
        assert (plain.json()["settings"]["adapter"], plain.json()["settings"]["adapter_scale"]) == ("", 1.0)


def test_adapters_under_a_prefix_are_loaded_beside_the_models_own_in_kohyas_format_too(
    adapted: Path, painter: PipelineRenderer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_kohya(adapted / "adapters" / "oil" / ADAPTER_FILE, tmp_path / "kohya.safetensors")
    ink = adapted / "adapters" / "ink" / ADAPTER_FILE
    with s3_server.serving() as server:
        for key, file in (("kohya.safetensors", tmp_path / "kohya.safetensors"), (f"copy/{ADAPTER_FILE}", ink)):
            server.client.put_object(Bucket=s3_server.BUCKET, Key=f"adapters/{key}", Body=file.read_bytes())
        arguments = ARGUMENTS.model_copy(update={"adapters_uri": f"s3://{s3_server.BUCKET}/adapters/"})
        renderer = load_renderer(adapted, arguments)
        assert renderer.adapters == ("copy", "ink", "kohya", "oil")
        for name, same in (("kohya", "oil"), ("copy", "ink")):
            expected = drawn(painter, with_adapter(same), JOBS)
            assert all(map(np.array_equal, drawn(renderer, with_adapter(name), JOBS), expected))
        with pytest.raises(StepError, match=r"adapters_uri: no NAME\.safetensors under"):
            load_renderer(adapted, arguments.model_copy(update={"adapters_uri": f"s3://{s3_server.BUCKET}/none"}))


def test_an_adapter_of_another_model_and_an_unknown_default_are_refused(adapted: Path, tmp_path: Path) -> None:
    with pytest.raises(StepError, match="adapter: 'chalk' is none of this model's: ink, oil"):
        load_renderer(adapted, ARGUMENTS.model_copy(update={"adapter": "chalk"}))
    folder = tmp_path / "model"
    shutil.copytree(adapted, folder)
    save_adapter(
        folder / "adapters" / "other",
        {f"down_blocks.9.to_q.lora_{kind}.weight": torch.ones(2, 2) for kind in "AB"},
        {},
    )
    with pytest.raises(StepError, match=r"other.*no (LoRA|adapter) of this model"):
        load_renderer(folder, ARGUMENTS)
