import numpy as np
import torch

from shapes import captions, picture_set, pictures


def test_stored_pictures_have_the_models_size_and_show_the_drawing() -> None:
    chosen = captions.every()[::500]
    pixels = picture_set.load(chosen)
    assert pixels.shape == (len(chosen), 3, 64, 64)
    assert pixels.dtype == torch.uint8
    for stored, caption in zip(pixels, chosen, strict=True):
        drawn = pictures.draw(caption, 64).astype(float)
        assert np.abs(stored.permute(1, 2, 0).numpy() - drawn).mean() < 4.0


def test_pixels_come_back_from_the_models_range() -> None:
    pixels = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    models = picture_set.to_models(pixels)
    assert (float(models.min()), float(models.max())) == (-1.0, 1.0)
    assert torch.equal(picture_set.to_pixels(models), pixels)
    beyond = picture_set.to_pixels(models * 300.0)
    assert set(beyond.flatten().tolist()) == {0, 255}
