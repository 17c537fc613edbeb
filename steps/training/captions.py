"""Captions for the UNet: encoded on the fly from token ids, or cached embeddings.

Dropped captions are replaced by the empty one here, when a sample is used: never in the cache.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from steps.errors import StepError
from steps.model.pretrained import load_text_encoder, load_tokenizer


class CaptionConditioning:
    """Token ids or embeddings of captions, and those of the empty caption."""

    def __init__(self, text_encoder: Any | None, empty: Tensor, keep_encoder: bool, device: torch.device) -> None:
        """Take a frozen text encoder and the empty caption's token ids, [caption length] int32.

        Without `keep_encoder` captions come as embeddings, and the encoder is used once, for the empty caption.
        Without any encoder token ids stay as they are: the model that is trained encodes them.
        """
        self._device = device
        self._encoder = text_encoder.to(device) if text_encoder is not None else None
        self._empty = empty
        if text_encoder is not None and not keep_encoder:
            self._empty = self.encode(empty[None].to(device))[0].cpu()
            self._encoder = None

    def choose(self, token_ids: Tensor, embeddings: Tensor | None, dropped: Tensor) -> Tensor:
        """Return token ids [n, L], or embeddings [n, L, width], in which dropped ([n] bool) captions are empty."""
        captions = token_ids if self._encoder is not None or embeddings is None else embeddings
        mask = dropped.view(-1, *(1,) * (captions.dim() - 1))
        return torch.where(mask, self._empty.to(captions.dtype), captions)

    @torch.no_grad()
    def encode(self, captions: Tensor) -> Tensor:
        """Return embeddings [n, L, width] of what `choose` returned, on the device."""
        if self._encoder is None:
            return captions
        embeddings: Tensor = self._encoder(captions.long())[0]
        return embeddings


def load_captions(
    folder: Path, length: int, cached: bool, device: torch.device, dtype: torch.dtype, is_frozen: bool = True
) -> CaptionConditioning:
    """Return the captions of a pretrained folder's tokenizer and, if it is frozen, text encoder, `length` tokens each.

    Raises StepError where the text encoder is to learn and captions come as embeddings.
    """
    if cached and not is_frozen:
        raise StepError(
            "lora_text_encoder: the latents hold embeddings that the text encoder made as it was; set "
            "encode.caption_embeddings to false, or lora_text_encoder"
        )
    tokenizer: Any = load_tokenizer(folder)
    tokens = tokenizer("", padding="max_length", max_length=length, truncation=True).input_ids
    empty = torch.tensor(tokens, dtype=torch.int32)
    encoder = load_text_encoder(folder, dtype) if is_frozen else None
    return CaptionConditioning(encoder, empty, keep_encoder=not cached, device=device)
