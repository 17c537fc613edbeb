"""What is trained on: JPEG files with captions, and the same pictures as cached latents.

Writes <folder>/pictures/*.jpg with metadata.jsonl, and <folder>/latents/ as Encode leaves them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from PIL import Image

from params.layout import MANIFEST_FILE
from shapes import captions, pictures
from steps.data.encoding.patch_features import PatchFeatures
from steps.data.latents.block import Array
from steps.model.digest import encoder_digests
from steps.model.families import denoiser_of
from steps.model.pretrained import load_vae
from steps.model.token_lengths import token_lengths
from steps.training.random_latents import write_rows

METADATA_FILE: Final = "metadata.jsonl"
JPEG_QUALITY: Final = 95
ENCODED_AT_ONCE: Final = 4
FEATURES_SIDE: Final = 4


def write_pictures(folder: Path, resolution_px: int, count: int) -> Path:
    """Write pictures of the local world, stored at the training resolution, as Download stores them."""
    grid = captions.every()
    return draw_captions(folder, resolution_px, [grid[index * 17 % len(grid)] for index in range(count)])


def draw_captions(folder: Path, resolution_px: int, chosen: Sequence[captions.Caption]) -> Path:
    """Write the pictures of these captions."""
    folder.mkdir(parents=True)
    lines = []
    for index, caption in enumerate(chosen):
        picture = Image.fromarray(pictures.draw(caption, resolution_px))
        picture.save(folder / f"{index:05d}.jpg", quality=JPEG_QUALITY)
        lines.append(json.dumps({"file_name": f"{index:05d}.jpg", "text": caption.text()}))
    (folder / METADATA_FILE).write_text("\n".join(lines))
    return folder


def read_captions(folder: Path) -> list[str]:
    """Return the captions of the pictures in a folder, in the order of their names."""
    return [json.loads(line)["text"] for line in (folder / METADATA_FILE).read_text().splitlines()]


@torch.no_grad()
def write_latents(
    folder: Path, source: Path, pretrained: Path, device: torch.device, vision: Path | None = None
) -> Path:
    """Encode pictures to the artifact that the loader reads, with a vision model's features where one is named.

    The same rows are held out, too.
    """
    denoiser = denoiser_of(pretrained)
    reader = denoiser.reader(pretrained, sum(token_lengths(pretrained, denoiser.family).values()), None)
    vae = load_vae(pretrained, torch.float32).to(device)
    paths = sorted(source.glob("*.jpg"))
    moments = [_moments(vae, batch, device) for batch in _batches(paths)]
    rows = {
        "mean": np.concatenate([mean for mean, _ in moments]),
        "std": np.concatenate([std for _, std in moments]),
        "token_ids": reader.tokens(read_captions(source)).numpy(),
    }
    if vision is not None:
        features = PatchFeatures(vision, FEATURES_SIDE, device)
        rows["features"] = np.concatenate([features.of(batch.to(device)).numpy() for batch in _batches(paths)])
    scaling, shift = float(vae.config.scaling_factor), float(vae.config.shift_factor or 0.0)
    write_rows(folder, rows, 8 * rows["mean"].shape[-1], scaling, shift)
    return folder


def sign(folder: Path, pretrained: Path) -> None:
    """Write into latents' manifest by which models they were made, as Encode does: training compares."""
    file = folder / MANIFEST_FILE
    digests = encoder_digests(pretrained, denoiser_of(pretrained).family)
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | digests), encoding="utf-8")


def _batches(paths: list[Path]) -> Iterator[torch.Tensor]:
    for first in range(0, len(paths), ENCODED_AT_ONCE):
        pixels = np.stack([np.asarray(Image.open(path)) for path in paths[first : first + ENCODED_AT_ONCE]])
        yield torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1.0


def _moments(vae: Any, pixels: torch.Tensor, device: torch.device) -> tuple[Array, Array]:
    posterior = vae.encode(pixels.to(device)).latent_dist
    return posterior.mean.half().cpu().numpy(), posterior.std.half().cpu().numpy()
