"""Captions for the network: encoded on the fly from token ids, or cached embeddings.

Dropped captions are replaced by the empty one here, when a sample is used: never in the cache.
"""

from __future__ import annotations

import torch
from torch import Tensor

from steps.errors import StepError
from steps.model.denoiser import Conditions, TextReader


class CaptionConditioning:
    """Token ids or embeddings of captions, and those of the empty caption."""

    def __init__(self, reader: TextReader, cached: bool, device: torch.device, text_learns: bool = False) -> None:
        """Take a text reader; where captions come as embeddings, it is used once, for the empty caption.

        Where the text encoder learns, token ids stay as they are: the model that is trained encodes them. Raises
        StepError where captions then come as embeddings.
        """
        if cached and text_learns:
            raise StepError(
                "lora_text_encoder: the latents hold embeddings that the text encoder made as it was; set "
                "encode.caption_embeddings to false, or lora_text_encoder"
            )
        self.positions = reader.positions
        """Vectors for each caption that the network attends to."""
        self.encoders = reader.encoders
        """How many text encoders may tell of a caption."""
        self._reader: TextReader | None = None if text_learns else reader.to(device)
        self._empty = reader.tokens([""])[0]
        if cached:
            self._empty = self.encode(self._empty[None].to(device))[0][0].cpu()
            self._reader = None

    def choose(self, token_ids: Tensor, embeddings: Tensor | None, dropped: Tensor) -> Tensor:
        """Return token ids [n, L], or embeddings [n, L, width], in which dropped ([n] bool) captions are empty."""
        captions = token_ids if self._reader is not None or embeddings is None else embeddings
        mask = dropped.view(-1, *(1,) * (captions.dim() - 1))
        return torch.where(mask, self._empty.to(captions.dtype), captions)

    def encode(self, captions: Tensor, kept: Tensor | None = None) -> Conditions:
        """Return what the network is told of what `choose` returned, on the device; `kept` [n, encoders] or all."""
        return (captions,) if self._reader is None else self._reader.encode(captions, kept)
