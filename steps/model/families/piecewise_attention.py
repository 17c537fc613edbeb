"""Attention of a UNet on a CPU in bfloat16, a few heads at a time. Reads nothing, writes nothing."""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import Tensor

# 2 MB in bfloat16: the second-level cache of a server's core. Half and twice as many cost 0 to 20 % more.
SCORES_AT_ONCE: Final = 1 << 20


class PiecewiseAttention:
    """Attention for training in bfloat16 on a CPU: a few heads at a time, so that their scores stay in its cache.

    A processor of diffusers for the transformer blocks of a UNet2DConditionModel, without a mask. Torch's fused
    attention has a slow backward pass there (torch 2.13, AVX-512 BF16): forward and backward together take 1.7 to 9
    times as long as this, by the shape (docs/benchmarks.md).
    """

    def __call__(
        self,
        attention: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
    ) -> Tensor:
        """Return [n, tokens, channels] for hidden states of this shape, and a context for cross-attention."""
        if attention_mask is not None:
            raise ValueError("attention_mask: a UNet in training has none")
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        projected = attention.to_q(hidden_states), attention.to_k(context), attention.to_v(context)
        query, key, value = (attention.head_to_batch_dim(tensor) for tensor in projected)
        heads = max(1, SCORES_AT_ONCE // (query.shape[1] * key.shape[1]))
        pieces = zip(query.split(heads), key.split(heads), value.split(heads), strict=True)
        attended = torch.cat([_attend(*piece, attention.scale) for piece in pieces])
        projection, dropout = attention.to_out
        output: Tensor = dropout(projection(attention.batch_to_head_dim(attended)))
        return output


def _attend(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    empty = torch.empty(len(query), query.shape[1], key.shape[1], dtype=query.dtype, device=query.device)
    scores = torch.baddbmm(empty, query, key.transpose(1, 2), beta=0, alpha=scale)
    return torch.bmm(scores.softmax(-1), value)
