"""Attention for bfloat16 on a CPU: the matrix products stay in bfloat16, the attention itself runs in float32.

Torch's fused attention has a slow backward pass in bfloat16 on CPUs (torch 2.13, AVX-512 BF16, 64 tokens of 4 x 16:
17 times that of float32), which would make bfloat16 slower than float32 as a whole.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention


class CpuAttentionProcessor:
    """What diffusers' AttnProcessor2_0 does for the blocks of UNet2DConditionModel, in float32 between the products."""

    def __call__(
        self,
        attention: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        """Return the attention's output, [batch, tokens, width], for hidden states of that shape."""
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query, key, value = attention.to_q(hidden_states), attention.to_k(context), attention.to_v(context)
        with torch.autocast("cpu", enabled=False):
            q, k, v = (_split(states.float(), attention.heads) for states in (query, key, value))
            attended = scaled_dot_product_attention(q, k, v, attn_mask=attention_mask)
        merged = attended.transpose(1, 2).flatten(2).to(query.dtype)
        output: Tensor = attention.to_out[1](attention.to_out[0](merged))
        return output


def _split(states: Tensor, heads: int) -> Tensor:
    batch, tokens, width = states.shape
    return states.view(batch, tokens, heads, width // heads).transpose(1, 2)
