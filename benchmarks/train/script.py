"""What diffusers' text-to-image script does in its loop, on the libraries that it uses, and the same on cached latents.

The script is examples/text_to_image/train_text_to_image.py of diffusers 0.42, with the flags `--mixed_precision bf16
--use_ema --max_grad_norm 1` and no `--gradient_checkpointing`: accelerate's autocast, AdamW at torch's defaults,
EMAModel, a loss that is read in every step for the progress bar, VAE and text encoder online in bfloat16. For Stable
Diffusion 3, timesteps and target are those of examples/dreambooth/train_dreambooth_sd3.py. It was written anew from
what the scripts do. Where they are slow for want of a flag, it has the flag: loader workers on a GPU.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

import numpy as np
import torch
from accelerate import Accelerator
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.optimization import get_scheduler
from diffusers.training_utils import EMAModel, compute_density_for_timestep_sampling
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from benchmarks.train.contest import Step, Task
from benchmarks.train.models import read_captions
from params.families import FLOW
from params.layout import TRAIN_SPLIT
from steps.data.loading.latents import LatentsDataset
from steps.model.families import denoiser_of
from steps.model.pretrained import load_noise_scheduler, load_vae

LEARNING_RATE: Final = 1e-4
MIXED_PRECISION: Final = {"bfloat16": "bf16", "float32": "no"}
WEIGHT_DTYPES: Final = {"bfloat16": torch.bfloat16, "float32": torch.float32}

Sample = dict[str, Any]
# Noisy latents, their timesteps, and what is learned.
Noised = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


class Pictures(Dataset[Sample]):
    def __init__(self, task: Task) -> None:
        self._paths = sorted(task.pictures.glob("*.jpg"))
        self._captions = read_captions(task.pictures)
        length = LatentsDataset(task.latents).manifest.caption_length
        self._reader = denoiser_of(task.pretrained).reader(task.pretrained, length, None)
        self._side = task.resolution_px

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> Sample:
        with Image.open(self._paths[index]) as file:
            picture = file.convert("RGB")
        # Stored at this size already, where torchvision's Resize and RandomCrop pass a picture through.
        assert picture.size == (self._side, self._side)
        pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous().float().div(255)
        return {"pixel_values": pixels.sub(0.5).div(0.5), "input_ids": self._reader.tokens([self._captions[index]])[0]}


class Moments(Dataset[Sample]):
    """Cached posteriors and token ids, all in memory."""

    def __init__(self, task: Task) -> None:
        dataset = LatentsDataset(task.latents)
        rows = dataset.read(TRAIN_SPLIT, np.arange(dataset.count(TRAIN_SPLIT)))
        self._mean, self._std, self._tokens = rows.mean, rows.std, rows.token_ids

    def __len__(self) -> int:
        return len(self._mean)

    def __getitem__(self, index: int) -> Sample:
        return {"mean": self._mean[index], "std": self._std[index], "input_ids": self._tokens[index]}


@contextmanager
def online(task: Task) -> Iterator[Step]:
    dtype = WEIGHT_DTYPES[task.precision]
    vae = load_vae(task.pretrained, torch.float32).to(task.device, dtype=dtype)
    shift = vae.config.shift_factor or 0.0

    def latents_of(batch: Sample) -> torch.Tensor:
        return (vae.encode(batch["pixel_values"].to(dtype)).latent_dist.sample() - shift) * vae.config.scaling_factor

    yield _script(task, Pictures(task), latents_of)


@contextmanager
def cached(task: Task) -> Iterator[Step]:
    dtype = WEIGHT_DTYPES[task.precision]
    manifest = LatentsDataset(task.latents).manifest

    def latents_of(batch: Sample) -> torch.Tensor:
        mean, std = batch["mean"].to(dtype), batch["std"].to(dtype)
        return (mean + std * torch.randn_like(mean) - manifest.shift_factor) * manifest.scaling_factor

    yield _script(task, Moments(task), latents_of)


def _script(task: Task, dataset: Dataset[Sample], latents_of: Callable[[Sample], torch.Tensor]) -> Step:
    accelerator = Accelerator(mixed_precision=MIXED_PRECISION[task.precision], cpu=task.device.type == "cpu")
    dtype = WEIGHT_DTYPES[task.precision]
    denoiser, length = denoiser_of(task.pretrained), LatentsDataset(task.latents).manifest.caption_length
    noised = partial(_epsilon, load_noise_scheduler(task.pretrained))
    if denoiser.predictions[0] == FLOW:
        noised = partial(_flow, FlowMatchEulerDiscreteScheduler())
    reader = denoiser.reader(task.pretrained, length, dtype).to(accelerator.device)
    network = denoiser.new(task.pretrained, seed=0).train()
    ema = EMAModel(network.parameters(), model_cls=type(network), model_config=network.config)
    optimizer = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE)
    loader: Any = DataLoader(
        dataset, shuffle=True, batch_size=task.batch_size, num_workers=task.workers, persistent_workers=task.workers > 0
    )
    schedule = get_scheduler("constant", optimizer=optimizer, num_warmup_steps=0, num_training_steps=1_000_000)
    network, optimizer, loader, schedule = accelerator.prepare(network, optimizer, loader, schedule)
    ema.to(accelerator.device)
    progress = tqdm(total=1_000_000, disable=True)
    batches = _endless(loader)

    def step() -> None:
        batch = next(batches)
        with accelerator.accumulate(network):
            latents = latents_of(batch)
            noisy, timesteps, target = noised(latents.float(), torch.randn_like(latents).float())
            prediction = denoiser.forward(network, noisy.to(dtype), timesteps, reader.encode(batch["input_ids"]))
            loss = torch.nn.functional.mse_loss(prediction.float(), target, reduction="mean")
            mean_loss = accelerator.gather(loss.repeat(task.batch_size)).mean()
            read_loss = mean_loss.item()
            accelerator.backward(loss)
            if accelerator.sync_gradients:
                accelerator.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
        if accelerator.sync_gradients:
            ema.step(network.parameters())
            progress.update(1)
            accelerator.log({"train_loss": read_loss})
        progress.set_postfix(step_loss=loss.detach().item(), lr=schedule.get_last_lr()[0])

    return step


def _epsilon(scheduler: Any, latents: torch.Tensor, noise: torch.Tensor) -> Noised:
    steps = scheduler.config.num_train_timesteps
    timesteps = torch.randint(0, steps, (len(latents),), device=latents.device)
    return scheduler.add_noise(latents, noise, timesteps.long()), timesteps, noise


def _flow(scheduler: Any, latents: torch.Tensor, noise: torch.Tensor) -> Noised:
    shares = compute_density_for_timestep_sampling("logit_normal", len(latents), logit_mean=0.0, logit_std=1.0)
    chosen = (shares * scheduler.config.num_train_timesteps).long()
    timesteps, sigmas = (values[chosen].to(latents.device) for values in (scheduler.timesteps, scheduler.sigmas))
    share = sigmas[:, None, None, None]
    return (1.0 - share) * latents + share * noise, timesteps, noise - latents


def _endless(loader: Any) -> Iterator[Sample]:
    while True:
        yield from loader
