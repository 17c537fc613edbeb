"""What a training process imports, all of it; the fork server imports this once."""

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import pandas
    import torch
    from diffusers import DDIMScheduler, DDPMScheduler, UNet2DConditionModel
    from torch.utils.tensorboard import SummaryWriter
    from transformers import CLIPTextModel, CLIPTokenizer

torch.set_num_threads(1)

__all__ = [
    "CLIPTextModel",
    "CLIPTokenizer",
    "DDIMScheduler",
    "DDPMScheduler",
    "SummaryWriter",
    "UNet2DConditionModel",
    "pandas",
]
