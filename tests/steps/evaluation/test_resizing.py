"""Each convention resizes as the program after which it is named: the case `resize.py` of issue 18."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

from steps.evaluation import resizing


def photo(side_px: int, seed: int = 0) -> torch.Tensor:
    """A picture with a 1/f spectrum, as photographs have, (1, 3, side, side) uint8."""
    frequencies = torch.fft.fftfreq(side_px)
    power = frequencies[:, None] ** 2 + frequencies[None] ** 2
    power[0, 0] = 1
    noise = torch.randn(3, side_px, side_px, generator=torch.Generator().manual_seed(seed))
    field = torch.fft.ifft2(torch.fft.fft2(noise) / power**0.5).real
    return ((field - field.mean()) / field.std() * 50 + 128).clamp(0, 255).round().byte()[None]


def by_pillow(picture: torch.Tensor) -> torch.Tensor:
    channels = picture[0].numpy().astype(np.float32)
    resized = [Image.fromarray(one, mode="F").resize((299, 299), Image.Resampling.BICUBIC) for one in channels]
    return torch.from_numpy(np.stack([np.asarray(one) for one in resized]))[None]


@pytest.mark.filterwarnings("ignore:'mode' parameter is deprecated:DeprecationWarning")
@pytest.mark.parametrize("side_px", [64, 512])
def test_the_conventions_are_those_of_the_programs_that_they_are_named_after(side_px: int) -> None:
    picture = photo(side_px)
    plain = functional.interpolate(picture.float(), size=(299, 299), mode="bilinear", align_corners=False)
    # pytorch-fid feeds 2 x / 255 - 1 to a network that here gets (x - 128) / 128.
    fed = (resizing.pytorch_fid(picture, 299) - 128) / 128
    assert torch.allclose(fed, 2 * plain / 255 - 1, atol=1e-5)
    assert torch.equal(resizing.clean_fid(picture, 299), by_pillow(picture))


def test_they_agree_on_pictures_that_are_enlarged_and_differ_by_grey_levels_where_they_are_reduced() -> None:
    def apart(side_px: int) -> float:
        picture = photo(side_px)
        ours, published = resizing.torchmetrics(picture, 299), resizing.pytorch_fid(picture, 299) * 255 / 256
        return float((ours - published).square().mean().sqrt())

    assert apart(256) < 0.01
    assert apart(512) > 5
