import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.numpy import load

from shapes import captions, pictures
from steps.data.encoding.encoder import BlockEncoder, moments_sums
from steps.data.encoding.encoder_settings import EncoderSettings
from steps.data.encoding.plan import Block
from steps.data.latents.block import Array
from steps.errors import StepError
from steps.model.pretrained import load_text_encoder, load_tokenizer, load_vae
from tests.steps.data.shapes_shards import PRETRAINED

GRID = captions.every()[::200]
TEXTS = [caption.text() for caption in GRID]
SETTINGS = EncoderSettings(PRETRAINED, 8, 16, True, "float32")


@pytest.fixture(scope="module")
def encoder() -> BlockEncoder:
    return BlockEncoder(SETTINGS)


@pytest.fixture(scope="module")
def pixels() -> Array:
    return np.stack([pictures.draw(caption, 64) for caption in GRID])


def row(pixels: Array, number: int = 0) -> tuple[Block, Array, list[str], list[str]]:
    return ("train-00000.tar", number), pixels, TEXTS, []


def test_moments_are_the_raw_posterior_of_pictures_in_minus_one_to_one(encoder: BlockEncoder, pixels: Array) -> None:
    tensors = encoder.encode(pixels, TEXTS)
    vae = load_vae(PRETRAINED, torch.float32)
    with torch.inference_mode():
        inputs = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
        posterior = vae.encode(inputs).latent_dist
    np.testing.assert_allclose(tensors["mean"], posterior.mean.numpy(), atol=4e-3)
    np.testing.assert_allclose(tensors["std"], posterior.std.numpy(), atol=4e-3)
    assert tensors["mean"].dtype == np.float16 and tensors["mean"].shape == (len(GRID), 4, 8, 8)


def test_tokens_and_embeddings_are_those_of_the_models(encoder: BlockEncoder, pixels: Array) -> None:
    tensors = encoder.encode(pixels, TEXTS)
    tokens = load_tokenizer(PRETRAINED)(
        TEXTS, padding="max_length", max_length=16, truncation=True, return_tensors="pt"
    )
    np.testing.assert_array_equal(tensors["token_ids"], tokens["input_ids"].numpy())
    assert tensors["token_ids"].dtype == np.int32
    with torch.inference_mode():
        embeddings = load_text_encoder(PRETRAINED, torch.float32)(tokens["input_ids"])[0]
    np.testing.assert_allclose(tensors["embeddings"], embeddings.numpy(), atol=1e-2)


def test_long_and_odd_captions_have_the_same_length(encoder: BlockEncoder, pixels: Array) -> None:
    texts = ["", "circle " * 500, "\U0001f600 ß \x00", *TEXTS[3:]]
    assert encoder.encode(pixels, texts)["token_ids"].shape == (len(GRID), 16)


def test_a_block_is_the_same_whenever_it_is_encoded(encoder: BlockEncoder, pixels: Array) -> None:
    first = encoder(*row(pixels))
    encoder(*row(pixels[::-1]))
    assert encoder(*row(pixels)).content == first.content
    assert set(load(first.content)) == {"mean", "std", "token_ids", "embeddings"}


def test_decoded_latents_are_like_their_pictures_and_wrong_ones_are_not(encoder: BlockEncoder, pixels: Array) -> None:
    mean = encoder.encode(pixels, TEXTS)["mean"]
    assert encoder.psnr_db(pixels, mean) > 25
    assert encoder.psnr_db(pixels, mean[::-1].copy()) < 15
    assert encoder.psnr_db(pixels, mean * np.float16(0.18)) < 15


def test_only_the_first_block_of_a_shard_is_decoded(encoder: BlockEncoder, pixels: Array) -> None:
    assert encoder(*row(pixels)).psnr_db > 25
    assert math.isnan(encoder(*row(pixels, number=1)).psnr_db)


def test_sums_are_those_of_sampled_latents(encoder: BlockEncoder, pixels: Array) -> None:
    tensors = encoder.encode(pixels, TEXTS)
    sums = moments_sums(tensors["mean"], tensors["std"])
    noise = np.random.default_rng(0).standard_normal((200, *tensors["mean"].shape))
    latents = tensors["mean"].astype(float) + tensors["std"].astype(float) * noise
    assert sums[0] == len(GRID) * 64
    np.testing.assert_allclose(np.array(sums[1:5]) / sums[0], latents.mean(axis=(0, 1, 3, 4)), atol=0.01)
    np.testing.assert_allclose(np.array(sums[5:]) / sums[0], (latents**2).mean(axis=(0, 1, 3, 4)), rtol=0.02)


def test_moments_that_are_not_finite_end_the_step(pixels: Array, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = BlockEncoder(replace(SETTINGS, caption_embeddings=False))
    tensors = encoder.encode(pixels, TEXTS)
    assert "embeddings" not in tensors
    tensors["std"] = tensors["std"] * np.float16(np.inf)
    monkeypatch.setattr(encoder, "encode", lambda *_: tensors)
    with pytest.raises(StepError, match=r"train-00000\.tar block 0: the VAE's std is not finite in float32"):
        encoder(*row(pixels))
