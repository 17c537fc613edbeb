"""Captions are dropped when they are used, and encoded on the fly or cached."""

from pathlib import Path

import torch

from steps.model.families.unet import UNet
from steps.model.pretrained import load_text_encoder, load_tokenizer
from steps.training.inputs import CaptionConditioning
from tests.steps.training.tiny_model import CAPTION_LENGTH, WIDTH

CPU = torch.device("cpu")
IDS = torch.arange(3 * CAPTION_LENGTH, dtype=torch.int32).view(3, CAPTION_LENGTH)
DROPPED = torch.tensor([False, True, False])


def captions(pretrained: Path, cached: bool = False) -> CaptionConditioning:
    return CaptionConditioning(UNet().reader(pretrained, CAPTION_LENGTH, torch.float32), cached, CPU)


def empty_ids(pretrained: Path) -> torch.Tensor:
    tokenizer = load_tokenizer(pretrained)
    return torch.tensor(tokenizer("", padding="max_length", max_length=CAPTION_LENGTH).input_ids)


def test_a_dropped_caption_is_the_empty_one(pretrained: Path) -> None:
    chosen = captions(pretrained).choose(IDS, None, DROPPED)
    assert torch.equal(chosen[[0, 2]], IDS[[0, 2]])
    assert chosen[1].tolist() == empty_ids(pretrained).tolist()


def test_captions_are_encoded_as_the_pipeline_does(pretrained: Path) -> None:
    expected = load_text_encoder(pretrained, torch.float32)(IDS.long())[0]
    torch.testing.assert_close(captions(pretrained).encode(IDS)[0], expected)


def test_cached_embeddings_and_token_ids_mean_the_same(pretrained: Path) -> None:
    online = captions(pretrained)
    embeddings = online.encode(IDS)[0].to(torch.float16)
    cached = captions(pretrained, cached=True)
    found = cached.encode(cached.choose(IDS, embeddings, DROPPED))[0]
    expected = online.encode(online.choose(IDS, None, DROPPED))[0]
    assert found.shape == (3, CAPTION_LENGTH, WIDTH)
    torch.testing.assert_close(found.float(), expected, rtol=1e-2, atol=1e-2)
