"""What the model is trained on: loaded rows, their captions and random numbers, on the rank's device.

Captions are token ids that are encoded on the fly, or cached embeddings. Dropped ones are replaced by the empty one
here, when a sample is used: never in the cache.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, Final

import torch
from torch import Tensor

from steps.data.loading.batch_ring import LoadedBatch
from steps.errors import StepError
from steps.model.denoiser import Conditions, TextReader
from steps.training.block_aids import BlockAids
from steps.training.diffusion import Diffusion, RectifiedFlow
from steps.training.draws import Draws, draw, draw_kept, draw_written

# Enough that a GPU never waits for its next step, and few enough that what is queued does not fill its memory.
STEPS_AHEAD: Final = 2


class CaptionConditioning:
    """Token ids or embeddings of captions, and those of the empty caption."""

    def __init__(self, reader: TextReader, cached: bool, device: torch.device, text_learns: bool = False) -> None:
        """Take a reader, used once where captions come as embeddings; StepError where a text encoder then learns."""
        if cached and text_learns:
            raise StepError(
                "lora_text_encoder: the latents hold embeddings that the text encoder made as it was; set "
                "encode.caption_embeddings to false, or lora_text_encoder"
            )
        self.positions, self.encoders = reader.positions, reader.encoders
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


class Courier:
    """Brings batches to the device; on a GPU over a stream of its own, while it works on the batch before.

    A loader uses a batch's pinned memory again for the batch after the next. Copies that stood in line behind the
    steps that a GPU has yet to do might read it too late. These do not stand in line, and the next batch is not taken
    before they are done.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        library: Any = torch.cuda
        self._stream = library.Stream(device) if device.type == "cuda" else None
        self._copied: torch.cuda.Event | None = None
        self._steps: deque[torch.cuda.Event] = deque()

    def bring(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Return the tensors on the device, for whatever its current stream does next."""
        if self._stream is None:
            return [tensor.to(self._device) for tensor in tensors]
        compute = torch.cuda.current_stream(self._device)
        self._keep_near(compute)
        with torch.cuda.stream(self._stream):
            brought = [tensor.pin_memory().to(self._device, non_blocking=True) for tensor in tensors]
            self._copied = self._stream.record_event()
        compute.wait_event(self._copied)
        for tensor in brought:
            # Its memory belongs to the copying stream, which must not use it again while the step is under way.
            tensor.record_stream(compute)
        return brought

    def _keep_near(self, compute: torch.cuda.Stream) -> None:
        """Wait for the last batch's copies, and until no more than `STEPS_AHEAD` steps are queued."""
        if self._copied is not None:
            self._copied.synchronize()
        self._steps.append(compute.record_event())
        if len(self._steps) > STEPS_AHEAD:
            self._steps.popleft().synchronize()


@dataclass(frozen=True)
class Inputs:
    """Samples on the device, ready for the objective."""

    mean: Tensor
    std: Tensor
    posterior: Tensor
    noise: Tensor
    timesteps: Tensor
    captions: Tensor
    kept: Tensor
    """[n, encoders] bool: the text encoders that tell of each caption."""
    routes: Tensor | None = None
    """[n, kept] int64, with BlockAids: the tokens that skip no block; [n, 0] where none do."""
    features: Tensor | None = None
    """[n, side, side, width] float16, with BlockAids that align: what a block is aligned with, or zeros."""

    def __len__(self) -> int:
        return len(self.timesteps)

    def micro_batches(self, size: int) -> "Iterator[Inputs]":
        """Yield pieces of `size` samples, as views."""
        tensors = [tensor for field in fields(self) if (tensor := getattr(self, field.name)) is not None]
        for start in range(0, len(self), size):
            yield Inputs(*(tensor[start : start + size] for tensor in tensors))


@dataclass(frozen=True)
class InputMaker:
    """Makes inputs out of rows."""

    seed: int
    caption_dropout: float
    noise_offset: float
    process: Diffusion | RectifiedFlow
    captions: CaptionConditioning
    device: torch.device
    encoder_dropout: float = 0.0
    aids: BlockAids | None = None
    written_captions: float = 0.0

    @cached_property
    def _courier(self) -> Courier:
        return Courier(self.device)

    def training(self, rows: LoadedBatch, positions: Tensor) -> Inputs:
        """Return the inputs of a rank's slice of a global batch; `positions` [n] are those of the training stream."""
        places, pinned = positions.tolist(), self.device.type == "cuda"
        draws = draw(self.seed, places, latent_shape_of(rows.mean), pin_memory=pinned)
        timesteps = self.process.timestep_of(draws.timestep)
        # Noise that a channel shares lets the model learn dark and bright pictures (Guttenberg 2023, offset noise).
        noise = draws.noise.add_(draws.offset, alpha=self.noise_offset) if self.noise_offset else draws.noise
        kept = draw_kept(self.seed, places, self.captions.encoders, self.encoder_dropout)
        if self.written_captions and rows.written_token_ids is not None:
            is_written = draw_written(self.seed, places, self.written_captions)[:, None]
            rows = replace(rows, token_ids=torch.where(is_written, rows.written_token_ids, rows.token_ids))
        aids = self.aids.draw(positions, latent_shape_of(noise), rows.features) if self.aids else ()
        return self._assemble(rows, draws, noise, timesteps, draws.caption < self.caption_dropout, (kept, *aids))

    def whole(self, rows: LoadedBatch, draws: Draws, timesteps: Tensor) -> Inputs:
        """Return inputs in which no caption and no text encoder is dropped."""
        kept = torch.ones((len(timesteps), self.captions.encoders), dtype=torch.bool)
        return self._assemble(rows, draws, draws.noise, timesteps, ~kept[:, 0], [kept])

    def _assemble(
        self, rows: LoadedBatch, draws: Draws, noise: Tensor, timesteps: Tensor, dropped: Tensor, rest: Sequence[Tensor]
    ) -> Inputs:
        captions = self.captions.choose(rows.token_ids, rows.embeddings, dropped)
        tensors = (rows.mean, rows.std, draws.posterior, noise, timesteps, captions, *rest)
        return Inputs(*self._courier.bring(tensors))


def latent_shape_of(latents: Tensor) -> tuple[int, int, int]:
    """Return channels, height and width of latents [n, C, H, W]: every bucket has its own."""
    return latents.shape[1], latents.shape[2], latents.shape[3]
