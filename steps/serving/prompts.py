"""Prompts to embeddings, one at a time so that they do not depend on the batch, and kept for the next request."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor

# 77 tokens of width 1024 in half precision are 154 KiB: 40 MB in all.
MAX_ENTRIES: Final = 256


@dataclass(frozen=True)
class Embedding:
    """What the text encoder makes of one prompt."""

    states: Tensor
    """(1, tokens, width)."""
    truncated: bool
    """The prompt is longer than the text encoder reads."""


class PromptEncoder:
    """Tokenizer and text encoder of a pipeline, with the last prompts' embeddings (the empty one is always there)."""

    def __init__(self, tokenizer: Any, text_encoder: Any) -> None:
        self._tokenizer, self._text_encoder = tokenizer, text_encoder
        self._known: OrderedDict[str, Embedding] = OrderedDict()

    def encode(self, prompt: str) -> Embedding:
        """Return the embedding of a prompt, as StableDiffusionPipeline.encode_prompt computes it."""
        known = self._known.get(prompt)
        if known is None:
            known = self._known[prompt] = self._encode(prompt)
        self._known.move_to_end(prompt)
        while len(self._known) > MAX_ENTRIES:
            self._known.popitem(last=False)
        return known

    @torch.no_grad()
    def _encode(self, prompt: str) -> Embedding:
        length = self._tokenizer.model_max_length
        tokens = self._tokenizer(prompt, padding="max_length", max_length=length, return_tensors="pt", verbose=False)
        ids, mask = tokens.input_ids, tokens.attention_mask
        truncated = ids.shape[1] > length
        if truncated:
            tokens = self._tokenizer(
                prompt, padding="max_length", max_length=length, truncation=True, return_tensors="pt"
            )
            ids, mask = tokens.input_ids, tokens.attention_mask
        device = self._text_encoder.device
        wants_mask = getattr(self._text_encoder.config, "use_attention_mask", False)
        states = self._text_encoder(ids.to(device), attention_mask=mask.to(device) if wants_mask else None)[0]
        return Embedding(states, truncated)
