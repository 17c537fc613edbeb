"""What helps a transformer learn and is in no exported model: tokens that skip blocks, and a block that is aligned.

Routing (TREAD, Krause et al. 2025, arXiv:2501.04765): in training a fixed share of a picture's tokens, drawn anew for
each sample, skips the blocks between a first and a last one and is put back at its place. Alignment (REPA, Yu et al.
2024, arXiv:2410.06940): what a block holds of a picture, averaged over the cells of a grid and projected by a small
network, is to point where a vision model's features of the same cells do, which Encode stored. Reads nothing.
"""

from collections.abc import Mapping
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from params.programs import TrainArguments
from steps.data.latents.latents_manifest import LatentsManifest
from steps.errors import StepError
from steps.model.denoiser import Denoiser, Shape
from steps.training.draws import draw_routes

# A part of the network while it is trained, so that its weights are summed, divided, saved and resumed like all others.
PROJECTOR: Final = "alignment_projector"
# At the beginning and at the end of the network, so many blocks see all tokens.
WHOLE_BLOCKS: Final = 2


class BlockAids:
    """The aids of one network, and what its blocks are told of the micro-batch that is passing."""

    def __init__(
        self, denoiser: Denoiser, arguments: TrainArguments, config: Mapping[str, Any], manifest: LatentsManifest
    ) -> None:
        """Raise StepError that names the setting which fits neither the network nor the latents."""
        self._denoiser, self._arguments, self._features_shape = denoiser, arguments, manifest.features_shape
        self._fraction = arguments.routing_fraction if manifest.resolution_px >= arguments.routing_from_px else 0.0
        blocks, self._token_width, self._patch = denoiser.blocks(config)
        self._first, self._last = WHOLE_BLOCKS + 1, blocks - WHOLE_BLOCKS
        self._aligned_block = arguments.alignment_block or max(1, blocks // 3)
        if self._fraction and self._first > self._last:
            raise StepError(f"train.routing_fraction: of {blocks} blocks none could be skipped; set it to 0")
        if arguments.alignment_weight and self._aligned_block > blocks:
            raise StepError(f"train.alignment_block {self._aligned_block}: the network has {blocks} blocks")
        if arguments.alignment_weight and not self._features_shape:
            raise StepError("train.alignment_weight: the latents hold no features; set encode.features, or it to 0")
        self._poolings: dict[Shape, Tensor] = {}
        nothing: Any = None
        self._projector = self._routes = self._pooling = self._whole = self._projected = nothing

    def attach(self, network: Any) -> None:
        """Give a network its projector, the same on every rank, and have its blocks ask here."""
        if self._arguments.alignment_weight:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(self._arguments.seed)
                wide, out = self._token_width, self._features_shape[-1]
                hidden = (nn.Linear(wide, wide), nn.SiLU(), nn.Linear(wide, wide), nn.SiLU())
                self._projector = nn.Sequential(*hidden, nn.Linear(wide, out))
            setattr(network, PROJECTOR, self._projector.to(network.device, network.dtype))
        self._denoiser.on_blocks(network, self.before, self.after, self._arguments.gradient_checkpointing)

    def rehearse(self, latent_shape: Shape, network: Any) -> None:
        """Have a network without memory route the tokens of a sample; the projector is left out of its FLOPs."""
        tokens, kept = self._counts(latent_shape)
        self._routes = torch.zeros(1, kept, dtype=torch.int64, device="meta") if kept < tokens else None
        self._denoiser.on_blocks(network, self.before, self.after, gradient_checkpointing=False)

    def draw(self, positions: Tensor, latent_shape: Shape, features: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return routes and features for `positions` [n] and latents (C, H, W). Raises StepError for other features."""
        tokens, kept = self._counts(latent_shape)
        routes = draw_routes(self._arguments.seed, positions.tolist(), tokens, kept if kept < tokens else 0)
        if not self._arguments.alignment_weight:
            return routes, torch.empty(len(positions), 0)
        if features is None or features.shape[1:] != self._features_shape:
            raise StepError("latents: their features are not those of the manifest; run encode again")
        if last := self._arguments.alignment_samples:
            features = features * (positions < last)[:, None, None, None]
        return routes, features

    def prepare(self, latent_shape: Shape, routes: Tensor, like: Tensor) -> None:
        """Tell the blocks of the micro-batch that comes, of latents (C, H, W); `like` has its device and precision."""
        self._routes = routes if routes.shape[1] else None
        if not self._arguments.alignment_weight:
            return
        if latent_shape not in self._poolings:
            grid = (latent_shape[1] // self._patch, latent_shape[2] // self._patch)
            self._poolings[latent_shape] = _pooling(grid, self._features_shape[0]).to(like)
        self._pooling = self._poolings[latent_shape]
        if self._routes is not None and self._first <= self._aligned_block <= self._last:
            # Only what passes the block is averaged; [cells, n, kept] to [n, cells, kept].
            self._pooling = self._pooling[:, routes].transpose(0, 1)

    def before(self, block: int, tokens: Tensor) -> Tensor:
        """Return the tokens that a block reads: from the first one that some skip, only the others."""
        if self._routes is None or block != self._first:
            return tokens
        self._whole = tokens
        return tokens.gather(1, self._routes[:, :, None].expand(-1, -1, tokens.shape[2]))

    def after(self, block: int, tokens: Tensor) -> Tensor:
        """Return the tokens that follow a block: after the last one that some skip, all of them."""
        if self._pooling is not None and block == self._aligned_block:
            shares = self._pooling / self._pooling.sum(-1, keepdim=True).clamp_min(1e-6)
            self._projected = self._projector(shares @ tokens)
        if self._routes is None or block != self._last:
            return tokens
        whole: Tensor = self._whole
        self._whole = None
        return whole.scatter(1, self._routes[:, :, None].expand_as(tokens), tokens.to(whole.dtype))

    def losses(self, features: Tensor) -> Tensor:
        """Return the weighted losses of alignment of the micro-batch that passed, [n]: 1 - cosine, cells averaged.

        Cells all of whose tokens skip the block are left out, and those without features: after alignment_samples the
        losses are 0. The projector, whose gradient then is 0, stays, so that every step sends the same gradients.
        """
        if not self._arguments.alignment_weight:
            return features.new_zeros(len(features))
        projected, self._projected = self._projected, None
        wanted = features.to(self._pooling.dtype).flatten(1, 2)
        distances: Tensor = 1.0 - functional.cosine_similarity(projected.to(wanted.dtype), wanted, dim=-1)
        seen: Tensor = (self._pooling.sum(-1) > 0) & wanted.any(-1)
        return self._arguments.alignment_weight * (distances * seen).sum(1) / seen.sum(1).clamp_min(1)

    def _counts(self, latent_shape: Shape) -> tuple[int, int]:
        """Return how many tokens a picture has, and how many of them skip no block."""
        tokens = (latent_shape[1] // self._patch) * (latent_shape[2] // self._patch)
        return tokens, tokens - int(tokens * self._fraction)


def _pooling(grid: tuple[int, int], side: int) -> Tensor:
    """Return which share each token of a grid has in each of side x side cells, [cells, tokens]."""
    down, across = (functional.adaptive_avg_pool1d(torch.eye(length), side) for length in grid)
    return torch.kron(down, across).T.contiguous()
