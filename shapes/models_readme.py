"""The page beside the models that says how they were made: shapes/models/README.md.

Reads nothing, writes nothing: `shapes.train_models` passes the measured figures in and writes the text out.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TrainingFigures:
    """What was spent and what came out, on captions and pictures that no training saw."""

    clip_steps: int
    vae_cycles: tuple[int, ...]
    seed: int
    clip_cpu_s: float
    vae_cpu_s: float
    clip_bytes: int
    vae_bytes: int
    retrieval_at_1: float
    clip_score_right: float
    clip_score_shuffled: float
    psnr_db: float
    scaling_factor: float
    latent_mean: float
    latent_std: float


def readme(figures: TrainingFigures) -> str:
    """Return the page in Markdown."""
    f = figures
    cycles = " ".join(map(str, f.vae_cycles))
    return f"""# The small models of the local run

Made by `python -m shapes train-models --out shapes/models --clip-steps {f.clip_steps} --vae-steps {cycles} \
--seed {f.seed}` from the project's own drawings
(`shapes/captions.py`, `shapes/pictures.py`) and nothing else. Weights are safetensors in float16. The figures are on
the tenth of the captions, by a hash of the text, that no training sees.

| | CLIP (`evaluator/clip`, its text tower `pretrained/text_encoder`) | VAE (`pretrained/vae`) |
|---|---|---|
| made by | `shapes/train_clip.py` | `shapes/train_vae.py` |
| steps | {f.clip_steps:,} | {" + ".join(f"{steps:,}" for steps in f.vae_cycles)} |
| CPU-seconds | {f.clip_cpu_s:,.0f} | {f.vae_cpu_s:,.0f} |
| weights | {f.clip_bytes / 1e6:.1f} MB | {f.vae_bytes / 1e6:.1f} MB |
| held-out quality | retrieval@1 among 3,920 captions {f.retrieval_at_1:.3f} | PSNR {f.psnr_db:.1f} dB |
| | CLIP score {f.clip_score_right:.1f} for the right caption, {f.clip_score_shuffled:.1f} for another's | \
scaled latents: mean {f.latent_mean:.2f}, standard deviation {f.latent_std:.2f} (factor {f.scaling_factor}) |

- `pretrained/` has the layout of stable-diffusion-2-base. `unet/` holds a configuration only (`shapes/unet.py`): the
  pipeline trains it from scratch.
- `tokenizer/` is CLIP's byte-level BPE with one token for each word of the captions (`shapes/tokenizer.py`). Other
  words fall apart into bytes, and 16 tokens are all that the text tower reads.
- `evaluator/clip` serves FID features and CLIP scores. Its scores are comparable with each other only, not with those
  of other CLIP models.
"""
