"""Trains the small CLIP: text tower for conditioning, both towers for evaluation.

Reads the pictures and captions of the grid without the held-out tenth; returns a transformers CLIPModel. Contrastive
loss (Radford et al. 2021, arXiv:2103.00020). A batch is made of groups of captions that differ in one word, since with
batches drawn at random the rarely decisive words (shape, size) are learnt last.

`python -m shapes train-models` runs it.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

from shapes import picture_set, pictures
from shapes.captions import COLOURS, PLACES, SHAPES, SIZES, Caption

BATCH_SIZE: Final = 256
GROUP_SIZE: Final = 4
WEIGHT_DECAY: Final = 0.05
PATCH_PX: Final = 32
SHIFT_PX: Final = 2
NOISE: Final = 0.05
_WORDS: Final = (SIZES, COLOURS, SHAPES, PLACES, COLOURS)


def config(tokenizer: CLIPTokenizer) -> CLIPConfig:
    """Return the small CLIP: towers 64 and 128 wide; with patches of 16 px, not 32, it is slow to see places."""
    ends = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": 64,
        "intermediate_size": 256,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": tokenizer.model_max_length,
        "projection_dim": 64,
        **ends,
    }
    vision = {
        "hidden_size": 128,
        "intermediate_size": 512,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "image_size": pictures.MODEL_SIZE_PX,
        "patch_size": PATCH_PX,
        "projection_dim": 64,
    }
    return CLIPConfig(text_config=text, vision_config=vision, projection_dim=64)


def build(tokenizer: CLIPTokenizer) -> CLIPModel:
    """Return the untrained CLIP, with embeddings that begin where a tower this small learns.

    With the library's 0.02 the position embeddings drown in the patches (3,072 values each), and training stays long
    on a plateau where it sees colours only.
    """
    model = CLIPModel(config(tokenizer))
    # The plain attention: the fused one is several times slower backwards on a CPU for so few tokens.
    model.set_attn_implementation("eager")
    text, vision = model.text_model.embeddings, model.vision_model.embeddings
    with torch.no_grad():
        for weight in (text.token_embedding.weight, text.position_embedding.weight):
            weight.normal_(0.0, 0.1)
        for weight in (vision.position_embedding.weight, vision.class_embedding):
            weight.normal_(0.0, 0.3)
        vision.patch_embedding.weight.normal_(0.0, 0.015)
    return model


def tokenize(tokenizer: CLIPTokenizer, texts: Sequence[str]) -> Tensor:
    """Return the token ids of captions, (N, tokens), padded as StableDiffusionPipeline does."""
    ids: Tensor = tokenizer(list(texts), padding="max_length", truncation=True, return_tensors="pt")["input_ids"]
    return ids


def train(
    tokenizer: CLIPTokenizer, captions: Sequence[Caption], pixels: Tensor, steps: int, seed: int = 0
) -> CLIPModel:
    """Train the small CLIP on captions and their pictures, (N, 3, 64, 64) uint8, and return it."""
    torch.manual_seed(seed)
    model = build(tokenizer)
    model.train()
    tokens = tokenize(tokenizer, [caption.text() for caption in captions])
    # The tower is causal and read at the end token: what comes after it in every row is left out.
    tokens = tokens[:, : int((tokens == tokenizer.eos_token_id).int().argmax(dim=1).max()) + 1]

    def loss(rows: Tensor) -> Tensor:
        with torch.no_grad():
            model.logit_scale.clamp_(max=math.log(100.0))
        return loss_of(model, tokens[rows], augment(picture_set.to_models(pixels[rows])))

    batches = _batches(captions, steps, seed)
    picture_set.fit(model, batches, steps, loss, "CLIP", betas=(0.9, 0.98), weight_decay=WEIGHT_DECAY)
    return model.train(False)


def loss_of(model: CLIPModel, tokens: Tensor, batch: Tensor) -> Tensor:
    """Return the mean of both cross-entropies, picture to caption and caption to picture, over a batch."""
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(input_ids=tokens, pixel_values=batch).logits_per_image
    target = torch.arange(len(tokens))
    loss: Tensor = functional.cross_entropy(logits.float(), target)
    return (loss + functional.cross_entropy(logits.T.float(), target)) / 2


def augment(batch: Tensor) -> Tensor:
    """Shift a batch in -1..1 by up to 2 px, the edge repeated, and add noise: generated pictures are never exact."""
    padded = functional.pad(batch, (SHIFT_PX,) * 4, mode="replicate")
    down, right = torch.randint(0, 2 * SHIFT_PX + 1, (2,)).tolist()
    shifted = padded[:, :, down : down + batch.shape[2], right : right + batch.shape[3]]
    return shifted + NOISE * torch.randn_like(shifted)


@torch.no_grad()
def features(model: CLIPModel, tokenizer: CLIPTokenizer, texts: Sequence[str], pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the unit features of pictures, (M, 64), and of captions, (N, 64)."""
    chunks = map(picture_set.to_models, torch.split(pixels, BATCH_SIZE))
    images = [model.get_image_features(chunk).pooler_output for chunk in chunks]
    words = model.get_text_features(tokenize(tokenizer, texts)).pooler_output
    return functional.normalize(torch.cat(images), dim=-1), functional.normalize(words, dim=-1)


def _batches(captions: Sequence[Caption], steps: int, seed: int) -> Iterator[Tensor]:
    """Yield rows: random captions, each with neighbours that differ in one word."""
    numbers = np.random.default_rng(seed)
    row_of = {caption: row for row, caption in enumerate(captions)}
    for _ in range(steps):
        rows: dict[int, None] = {}
        while len(rows) < BATCH_SIZE:
            first = captions[int(numbers.integers(len(captions)))]
            group = [first, *(_neighbour(first, numbers) for _ in range(GROUP_SIZE - 1))]
            rows.update((row_of[caption], None) for caption in group if caption in row_of)
        yield torch.tensor(list(rows)[:BATCH_SIZE])


def _neighbour(caption: Caption, numbers: np.random.Generator) -> Caption:
    place, words = int(numbers.integers(len(caption))), list(caption)
    words[place] = str(numbers.choice(_WORDS[place]))
    return Caption(*words)
