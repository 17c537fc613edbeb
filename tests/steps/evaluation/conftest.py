"""A whole evaluation in miniature: a random pipeline, a random CLIP and a few held-out pictures."""

import io
import json
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
)

SIZE_PX = 16
TOKENS = 16
COLOURS = ("red", "green", "blue", "black", "white")
CAPTIONS = tuple(
    f"a {size} {colour} {shape}" for size in ("big", "tiny") for colour in COLOURS for shape in ("dot", "bar")
)


@pytest.fixture(name="one_thread", autouse=True)
def one_thread_fixture() -> Iterator[None]:
    """Compute with one thread: on a busy machine several that wait for each other take a hundred times as long."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(name="tokenizer", scope="session")
def tokenizer_fixture() -> CLIPTokenizer:
    words = sorted({word for caption in CAPTIONS for word in caption.split()})
    entries = [*"abcdefghijklmnopqrstuvwxyz", *(f"{letter}</w>" for letter in "abcdefghijklmnopqrstuvwxyz")]
    merges: list[Any] = []
    for word in words:
        parts = [*word[:-1], f"{word[-1]}</w>"]
        while len(parts) > 1:
            merges.append((parts[0], parts[1]))
            parts[:2] = [parts[0] + parts[1]]
            entries.append(parts[0])
    ends = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>"}
    entries += ends.values()
    vocab = {entry: index for index, entry in enumerate(dict.fromkeys(entries))}
    return CLIPTokenizer(
        vocab=vocab,
        merges=list(dict.fromkeys(merges)),
        unk_token=ends["eos_token"],
        pad_token=ends["eos_token"],
        model_max_length=TOKENS,
        **ends,
    )


def _text_config(tokenizer: CLIPTokenizer) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "max_position_embeddings": TOKENS,
        "projection_dim": 12,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


@pytest.fixture(name="pipeline_dir", scope="session")
def pipeline_dir_fixture(tokenizer: CLIPTokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(7)
    # Its own annotations are incomplete.
    library: Any = diffusers
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    unet = library.UNet2DConditionModel(
        sample_size=SIZE_PX // 2,
        block_out_channels=(8, 16),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=16,
        attention_head_dim=4,
        norm_num_groups=4,
    )
    pipeline = library.StableDiffusionPipeline(
        vae=library.AutoencoderKL(block_out_channels=(8, 8), norm_num_groups=4, **blocks),
        text_encoder=CLIPTextModel(CLIPTextConfig(**_text_config(tokenizer))),
        tokenizer=tokenizer,
        unet=unet,
        scheduler=library.DDPMScheduler(
            beta_schedule="scaled_linear", prediction_type="v_prediction", steps_offset=1, clip_sample=False
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    folder = tmp_path_factory.mktemp("pipeline")
    pipeline.save_pretrained(folder, safe_serialization=True)
    return folder


@pytest.fixture(name="evaluator_dir", scope="session")
def evaluator_dir_fixture(tokenizer: CLIPTokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(8)
    vision = {
        "hidden_size": 24,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": SIZE_PX,
        "patch_size": 8,
        "projection_dim": 12,
        # Wide enough that pictures of different colours have clearly different features.
        "initializer_range": 0.3,
    }
    folder = tmp_path_factory.mktemp("evaluator")
    config = CLIPConfig(text_config=_text_config(tokenizer), vision_config=vision, projection_dim=12)
    CLIPModel(config).save_pretrained(folder / "clip")
    tokenizer.save_pretrained(folder / "clip")
    size = {"height": SIZE_PX, "width": SIZE_PX}
    CLIPImageProcessorPil(size=size, crop_size=size).save_pretrained(folder / "clip")
    return folder


def picture(seed: int, size_px: int = SIZE_PX) -> Image.Image:
    numbers = np.random.default_rng(seed)
    corners = numbers.integers(0, 256, (2, 2, 3), dtype=np.uint8)
    return Image.fromarray(corners).resize((size_px, size_px), Image.Resampling.BICUBIC)


def add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


MakeReference = Callable[..., Path]


@pytest.fixture(name="make_reference")
def make_reference_fixture(tmp_path: Path) -> MakeReference:
    def make(folder: Path = tmp_path / "reference", count: int = len(CAPTIONS), size_px: int = SIZE_PX) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        names = ("reference-00000.tar", "reference-00001.tar")
        for number, name in enumerate(names):
            with tarfile.open(folder / name, "w") as tar:
                for row in range(number, count, len(names)):
                    content = io.BytesIO()
                    picture(row, size_px).save(content, "JPEG", quality=95)
                    add(tar, f"{row:06d}.jpg", content.getvalue())
                    add(tar, f"{row:06d}.txt", CAPTIONS[row % len(CAPTIONS)].encode())
                    add(tar, f"{row:06d}.json", b"{}")
        manifest = {"resolution_px": SIZE_PX, "shards": [{"name": name} for name in names]}
        (folder / "manifest.json").write_text(json.dumps(manifest))
        return folder

    return make


@pytest.fixture(name="make_archive")
def make_archive_fixture(pipeline_dir: Path) -> Callable[[Path], Path]:
    def make(path: Path) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(path, "w:gz") as tar:
            tar.add(pipeline_dir, arcname=".")
        return path

    return make


@pytest.fixture(name="job")
def job_fixture(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    evaluator_dir: Path,
    make_reference: MakeReference,
    make_archive: Callable[[Path], Path],
) -> Path:
    """The folders of an evaluate job, and SAGEMAKER_BASE_DIR pointing there."""
    base_dir = tmp_path / "ml"
    inputs = base_dir / "processing" / "input"
    make_reference(inputs / "reference")
    make_archive(inputs / "model" / "model.tar.gz")
    (inputs / "evaluator").symlink_to(evaluator_dir)
    monkeypatch.setenv("SAGEMAKER_BASE_DIR", str(base_dir))
    return base_dir
