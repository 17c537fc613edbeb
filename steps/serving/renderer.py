"""The pipeline behind the endpoint: batches of jobs that share a shape to pictures.

Reads the folder of a pipeline as diffusers saves it (safetensors). Each picture starts from the noise of its own seed,
drawn in float32 on the CPU, so that a seed means the same picture on every device and in every batch. Pictures that the
safety checker flags are replaced with black ones.
"""

import functools
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from params.programs import ServeArguments
from steps.device import choose_device
from steps.errors import StepError
from steps.model.denoiser import Conditions, TextReader, batched
from steps.model.digest import checked_digest
from steps.model.families import denoiser_in, load_pipeline
from steps.serving.adapters import load_adapters
from steps.serving.errors import AbandonedError, RenderError
from steps.serving.exact import MIN_ROWS, deviation, make_rows_independent
from steps.serving.pictures import Picture, PictureJob, Shape, WarmUp
from steps.serving.prompt_weights import MAX_PARTS, is_plain, split, unreadable
from steps.serving.safety import SafetyChecker, load_safety_checker

logger = logging.getLogger(__name__)

WARM_UP_STEPS: Final = 2
SELF_TEST_SIZE_PX: Final = 64
# 77 tokens of width 1024 in half precision are 154 KiB: 40 MB in all, or 8 times as much of the longest prompts.
MAX_KEPT_PROMPTS: Final = 256
# A mean this small beside the mean absolute value is rounding.
ZERO_MEAN: Final = 1e-3

Abandoned = Callable[[], bool]
"""Says that nobody waits for a batch any more."""


class PipelineRenderer:
    """A pipeline that draws pictures independent of what they are batched with."""

    checker: SafetyChecker | None = None

    def __init__(self, pipeline: Any, arguments: ServeArguments, identity: str) -> None:
        self.identity = identity
        self.max_batch_size = arguments.max_batch_size
        self.adapters = tuple(sorted({name for names in pipeline.get_list_adapters().values() for name in names}))
        self._adapter_in_use: tuple[str, float] | None = None
        self._pipeline, self._arguments = pipeline, arguments
        self._denoiser = denoiser_in(pipeline)
        self._prompts = PromptEncoder(self._denoiser.reader_of(pipeline))
        config = pipeline.scheduler.config
        self._sampler = functools.cache(lambda name: self._denoiser.sampler(name, config))
        self._eager = self._default = getattr(pipeline, self._denoiser.part)
        # One picture at a time: the decoder's arithmetic and memory then do not depend on the batch.
        pipeline.vae.enable_slicing()
        pipeline.set_progress_bar_config(disable=True)
        if arguments.compile:
            self._default = torch.compile(self._eager)
        elif arguments.exact_batches or pipeline.device.type == "cpu":
            make_rows_independent(self._eager)

    def refusal(self, shape: Shape, texts: Sequence[str] = ()) -> str:
        """Return why the model cannot draw pictures of a shape and prompts, in one line; empty where it can."""
        try:
            self._sampler(shape.sampler)
        except StepError as error:
            return str(error)
        for text in texts if shape.long_prompts else ():
            if problem := self._prompts.problem(text):
                return f"long_prompts: a {self._denoiser.family.pipeline} {problem}"
        return self._denoiser.undrawable(self._eager.config, self._latent_size(shape))

    def warm_up(self) -> WarmUp:
        """Draw pictures of the default shape, then one step in each batch size."""
        shape = self._shape(self._arguments.default_size_px, WARM_UP_STEPS)
        largest = self.max_batch_size
        # A compiled network is compiled again for the second size, and then for all others at once.
        for size in (1, 2, largest) if self._arguments.compile else (1,):
            self.render(shape, [PictureJob("", "", 0)] * size, lambda: False)
        # Every size where equality decides about batching; otherwise the powers of two show it well enough.
        some = [size for size in (2, 4, 8, 16, 32, 64, largest) if 1 < size <= largest]
        sizes = range(2, largest + 1) if self._arguments.exact_batches else sorted(set(some))
        noise = torch.cat([self._noise(shape, seed) for seed in range(largest)])
        worst = 0.0
        for adapter in ("", *self.adapters) if self._arguments.exact_batches else ("",):
            self._use_adapter(adapter, 1.0)
            worst = max(worst, deviation(self._one_step, noise, sizes))
        if worst > 0 and self._arguments.exact_batches:
            logger.warning("pictures are drawn one by one: batches deviate by %g", worst)
            self.max_batch_size = 1
        started_s = time.monotonic()
        self.render(shape, [PictureJob("", "", 0)], lambda: False)
        return WarmUp(worst, shape.work, time.monotonic() - started_s)

    def self_test(self) -> None:
        """Draw one small picture."""
        shape = self._shape(min(SELF_TEST_SIZE_PX, self._arguments.max_size_px), 1)
        self.render(shape, [PictureJob("", "", 0)], lambda: False)

    def render(self, shape: Shape, jobs: Sequence[PictureJob], abandoned: Abandoned) -> list[Picture]:
        """Draw the pictures of one batch; those whose prompts have equally many parts are denoised together.

        Raises AbandonedError when `abandoned`, asked at each step, says that nobody waits any more, and RenderError
        when the result is not a picture.
        """
        self._use_adapter(shape.adapter, shape.adapter_scale)
        count = self._prompts.parts if shape.long_prompts else lambda *texts: 0
        counts = [count(job.prompt, job.negative_prompt if shape.guidance_scale > 1 else "") for job in jobs]
        alike = {parts: [job for job, own in zip(jobs, counts, strict=True) if own == parts] for parts in counts}
        drawn = {parts: iter(self._draw(shape, parts, own, abandoned)) for parts, own in alike.items()}
        return [next(drawn[parts]) for parts in counts]

    # Not only without gradients, as diffusers draws: without versions and views of tensors to keep, too, which is a
    # twentieth of the time of a small model.
    @torch.inference_mode()
    def _draw(self, shape: Shape, parts: int, jobs: Sequence[PictureJob], abandoned: Abandoned) -> list[Picture]:
        guided = shape.guidance_scale > 1
        # Without guidance a single picture would be a single row, which takes other kernels than several.
        rows = list(jobs) if guided else [*jobs, *[jobs[-1]] * (MIN_ROWS - len(jobs))]
        prompts = [self._prompts.encode(job.prompt, parts) for job in rows]
        negatives = [self._prompts.encode(job.negative_prompt, parts) for job in rows] if guided else []
        setattr(self._pipeline, self._denoiser.part, self._network_for(shape, parts))
        output = self._call(
            shape,
            batched(prompt.conditions for prompt in prompts),
            batched(negative.conditions for negative in negatives) if guided else None,
            torch.cat([self._noise(shape, job.seed) for job in rows]),
            abandoned,
        )
        if not bool(torch.isfinite(output.images).all()):
            raise RenderError(f"the model gave infinite or undefined pixels (precision {self._arguments.precision})")
        levels = (output.images.float() * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
        cuts = [prompt.truncated for prompt in prompts], [one.truncated for one in negatives] or [False] * len(rows)
        drawn = zip(map(Image.fromarray, levels[: len(jobs)]), *cuts, strict=False)
        pictures = [Picture(image, None, cut, negative_cut) for image, cut, negative_cut in drawn]
        return [self.checker.checked(picture) for picture in pictures] if self.checker else pictures

    def _call(
        self, shape: Shape, wanted: Conditions, unwanted: Conditions | None, noise: Tensor, abandoned: Abandoned
    ) -> Any:
        def at_each_step(pipeline: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            if abandoned():
                raise AbandonedError
            return tensors

        self._pipeline.scheduler = self._sampler(shape.sampler)
        try:
            return self._pipeline(
                **self._denoiser.prompts(wanted, unwanted),
                latents=noise,
                width=shape.width_px,
                height=shape.height_px,
                num_inference_steps=shape.steps,
                guidance_scale=shape.guidance_scale,
                output_type="pt",
                callback_on_step_end=at_each_step,
                callback_on_step_end_tensor_inputs=[],
            )
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            raise RenderError("the device has too little memory for this size") from None

    def _use_adapter(self, name: str, scale: float) -> None:
        """Draw with an adapter from now on, or with the model's own weights; what another left is forgotten."""
        if (name, scale) == self._adapter_in_use:
            return
        if name:
            self._pipeline.enable_lora()
            self._pipeline.set_adapters(name, scale)
        elif self.adapters:
            self._pipeline.disable_lora()
        self._adapter_in_use = name, scale
        # The text encoder may be another one now.
        self._prompts.encode.cache_clear()

    @torch.inference_mode()
    def _one_step(self, latents: Tensor) -> Tensor:
        """Run the network as the pipeline does with guidance: each picture has two rows, all at one timestep."""
        timestep = self._pipeline.scheduler.timesteps[0]
        conditions = batched([self._prompts.encode("").conditions] * 2 * len(latents))
        output = self._denoiser.forward(self._default, torch.cat([latents] * 2), timestep, conditions)
        unguided, guided = output.chunk(2)
        return torch.cat([unguided, guided], dim=1)

    def _noise(self, shape: Shape, seed: int) -> Tensor:
        size = (1, self._eager.config.in_channels, *self._latent_size(shape))
        noise = torch.randn(size, generator=torch.Generator("cpu").manual_seed(seed))
        return noise.to(self._pipeline.device, self._eager.dtype)

    def _latent_size(self, shape: Shape) -> tuple[int, int]:
        factor = self._pipeline.vae_scale_factor
        return shape.height_px // factor, shape.width_px // factor

    def _network_for(self, shape: Shape, parts: int) -> Any:
        """Return the compiled network for what was compiled at start: other sizes, adapters, lengths take minutes."""
        is_default = shape.width_px == shape.height_px == self._arguments.default_size_px and not shape.adapter
        return self._default if is_default and parts <= 1 and shape.guidance_scale > 1 else self._eager

    def _shape(self, side_px: int, steps: int) -> Shape:
        return Shape(side_px, side_px, steps, self._arguments.guidance_scale, self._arguments.sampler)


@dataclass(frozen=True)
class Embedding:
    """What the text encoders make of one prompt."""

    conditions: Conditions
    """What the network is told of it, without a dimension of prompts."""
    truncated: bool
    """The prompt is longer than the text encoder reads."""


class PromptEncoder:
    """A pipeline's text reader, with the last prompts' embeddings: one at a time, so that none depends on a batch."""

    def __init__(self, reader: TextReader) -> None:
        self._reader = reader
        self._split = functools.partial(split, ids=reader.ids, room=reader.room)
        self.encode = functools.lru_cache(MAX_KEPT_PROMPTS)(self._encode)

    def problem(self, prompt: str) -> str:
        """Return why a prompt cannot be read with weights and in parts; empty where it can."""
        can = self._reader.room > 0 or (is_plain(prompt) and not self._reader.cuts(prompt))
        return unreadable(prompt) if can else "reads neither weights nor more than its text encoders take at once"

    def parts(self, *prompts: str) -> int:
        """Return in how many parts prompts are read, all in as many; 0: as the pipeline reads them."""
        return max(min(MAX_PARTS, len(self._split(one))) for one in prompts) if self._reader.room else 0

    def _encode(self, prompt: str, parts: int = 0) -> Embedding:
        """Return a prompt's embedding as the pipeline computes it, or of parts in a row, each with start and end."""
        if parts == 0:
            conditions = self._reader.encode(self._reader.tokens([prompt]))
            return Embedding(tuple(one[0] for one in conditions), self._reader.cuts(prompt))
        found, states = self._split(prompt), []
        for part in [*found, *[[]] * parts][:parts]:
            (whole,) = self._reader.encode(self._reader.framed([token for token, _ in part]))
            states.append(weighted(whole[0], [weight for _, weight in part]))
        return Embedding((torch.cat(states),), len(found) > parts)


def weighted(states: Tensor, weights: Sequence[float]) -> Tensor:
    """Return a part's vectors, [tokens, width], times the weights of those after the start, with the mean of before.

    As AUTOMATIC1111's web UI does unless told otherwise (EmphasisOriginal in modules/sd_emphasis.py), but the mean is
    that of one prompt, not of all that are drawn together. A mean of zero, but for rounding, is left to itself.
    """
    plain, ends = states.float(), (1, len(states) - 1 - len(weights))
    changed = plain * functional.pad(torch.tensor(weights, device=states.device), ends, value=1.0)[:, None]
    before, after = plain.mean(), changed.mean()
    is_zero = min(abs(before), abs(after)) < ZERO_MEAN * plain.abs().mean()
    return (changed if is_zero else changed * (before / after)).to(states.dtype)


def load_renderer(model_dir: Path, arguments: ServeArguments) -> PipelineRenderer:
    """Load the pipeline folder for the device at hand; raises StepError when it holds no pipeline or a damaged one."""
    device = choose_device()
    digest = checked_digest(model_dir)
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    dtype: torch.dtype = getattr(torch, arguments.precision)
    pipeline: Any = load_pipeline(model_dir, dtype, arguments.without_encoders)
    load_adapters(pipeline, model_dir, arguments)
    pipeline = pipeline.to(device)
    if arguments.channels_last:
        for model in (getattr(pipeline, denoiser_in(pipeline).part), pipeline.vae):
            model.to(memory_format=torch.channels_last)
    # Which algorithm runs fastest may change from day to day, but a seed must always give the same picture.
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    renderer = PipelineRenderer(pipeline, arguments, arguments.model_name or f"sha256:{digest}")
    renderer.checker = load_safety_checker(model_dir, arguments, device, dtype)
    return renderer
