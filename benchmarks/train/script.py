"""What diffusers' text-to-image script does in its loop, on the libraries that it uses, and the same on cached latents.

The script is examples/text_to_image/train_text_to_image.py of diffusers 0.42, with the flags `--mixed_precision bf16
--use_ema --max_grad_norm 1` and no `--gradient_checkpointing`: accelerate's autocast, AdamW at torch's defaults,
EMAModel, a loss that is read in every step for the progress bar, VAE and text encoder online in bfloat16. It was
written anew from what the script does. Where the script is slow for want of a flag, it has the flag: loader workers on
a GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
import torch
from accelerate import Accelerator
from diffusers.optimization import get_scheduler
from diffusers.training_utils import EMAModel
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from benchmarks.train.contest import Step, Task
from benchmarks.train.pictures import read_captions
from params.layout import TRAIN_SPLIT
from steps.data.loading.latents import LatentsDataset
from steps.model.families import denoiser_of
from steps.model.pretrained import load_noise_scheduler, load_text_encoder, load_tokenizer, load_vae

LEARNING_RATE: Final = 1e-4
MIXED_PRECISION: Final = {"bfloat16": "bf16", "float32": "no"}
WEIGHT_DTYPES: Final = {"bfloat16": torch.bfloat16, "float32": torch.float32}

Sample = dict[str, Any]


class Pictures(Dataset[Sample]):
    def __init__(self, task: Task) -> None:
        self._paths = sorted(task.pictures.glob("*.jpg"))
        self._captions = read_captions(task.pictures)
        self._tokenizer = load_tokenizer(task.pretrained)
        self._side = task.resolution_px

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> Sample:
        with Image.open(self._paths[index]) as file:
            picture = file.convert("RGB")
        # Stored at this size already, where torchvision's Resize and RandomCrop pass a picture through.
        assert picture.size == (self._side, self._side)
        pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous().float().div(255)
        tokens = self._tokenizer(
            self._captions[index], max_length=77, padding="max_length", truncation=True, return_tensors="pt"
        ).input_ids[0]
        return {"pixel_values": pixels.sub(0.5).div(0.5), "input_ids": tokens}


class Moments(Dataset[Sample]):
    """Cached posteriors and token ids, all in memory."""

    def __init__(self, task: Task) -> None:
        dataset = LatentsDataset(task.latents)
        rows = dataset.read(TRAIN_SPLIT, np.arange(dataset.count(TRAIN_SPLIT)))
        self._mean, self._std, self._tokens = rows.mean, rows.std, rows.token_ids.long()

    def __len__(self) -> int:
        return len(self._mean)

    def __getitem__(self, index: int) -> Sample:
        return {"mean": self._mean[index], "std": self._std[index], "input_ids": self._tokens[index]}


@contextmanager
def online(task: Task) -> Iterator[Step]:
    dtype = WEIGHT_DTYPES[task.precision]
    vae = load_vae(task.pretrained, torch.float32).to(task.device, dtype=dtype)

    def latents_of(batch: Sample) -> torch.Tensor:
        return vae.encode(batch["pixel_values"].to(dtype)).latent_dist.sample() * vae.config.scaling_factor

    yield _script(task, Pictures(task), latents_of)


@contextmanager
def cached(task: Task) -> Iterator[Step]:
    dtype = WEIGHT_DTYPES[task.precision]
    scaling_factor = LatentsDataset(task.latents).manifest.scaling_factor

    def latents_of(batch: Sample) -> torch.Tensor:
        mean, std = batch["mean"].to(dtype), batch["std"].to(dtype)
        return (mean + std * torch.randn_like(mean)) * scaling_factor

    yield _script(task, Moments(task), latents_of)


def _script(task: Task, dataset: Dataset[Sample], latents_of: Callable[[Sample], torch.Tensor]) -> Step:
    accelerator = Accelerator(mixed_precision=MIXED_PRECISION[task.precision], cpu=task.device.type == "cpu")
    dtype = WEIGHT_DTYPES[task.precision]
    noise_scheduler = load_noise_scheduler(task.pretrained)
    text_encoder = load_text_encoder(task.pretrained, torch.float32).to(accelerator.device, dtype=dtype)
    unet = denoiser_of(task.pretrained).new(task.pretrained, seed=0).train()
    ema = EMAModel(unet.parameters(), model_cls=type(unet), model_config=unet.config)
    optimizer = torch.optim.AdamW(unet.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.999), weight_decay=1e-2, eps=1e-8)
    loader: Any = DataLoader(
        dataset, shuffle=True, batch_size=task.batch_size, num_workers=task.workers, persistent_workers=task.workers > 0
    )
    schedule = get_scheduler("constant", optimizer=optimizer, num_warmup_steps=0, num_training_steps=1_000_000)
    unet, optimizer, loader, schedule = accelerator.prepare(unet, optimizer, loader, schedule)
    ema.to(accelerator.device)
    progress = tqdm(total=1_000_000, disable=True)
    batches = _endless(loader)

    def step() -> None:
        batch = next(batches)
        with accelerator.accumulate(unet):
            latents = latents_of(batch)
            noise = torch.randn_like(latents)
            timesteps = torch.randint(
                0, noise_scheduler.config.num_train_timesteps, (len(latents),), device=latents.device
            )
            noisy = noise_scheduler.add_noise(latents.float(), noise.float(), timesteps.long()).to(dtype=dtype)
            states = text_encoder(batch["input_ids"], return_dict=False)[0]
            prediction = unet(noisy, timesteps, states, return_dict=False)[0]
            loss = torch.nn.functional.mse_loss(prediction.float(), noise.float(), reduction="mean")
            mean_loss = accelerator.gather(loss.repeat(task.batch_size)).mean()
            read_loss = mean_loss.item()
            accelerator.backward(loss)
            if accelerator.sync_gradients:
                accelerator.clip_grad_norm_(unet.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
        if accelerator.sync_gradients:
            ema.step(unet.parameters())
            progress.update(1)
            accelerator.log({"train_loss": read_loss})
        progress.set_postfix(step_loss=loss.detach().item(), lr=schedule.get_last_lr()[0])

    return step


def _endless(loader: Any) -> Iterator[Sample]:
    while True:
        yield from loader
