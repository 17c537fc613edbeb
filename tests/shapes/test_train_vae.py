import pytest
import torch

from shapes import captions, picture_set, train_vae


@pytest.fixture(scope="module")
def pixels() -> torch.Tensor:
    return picture_set.load(captions.every()[::60])


def test_normalising_changes_the_latents_but_not_the_pictures(pixels: torch.Tensor) -> None:
    torch.manual_seed(0)
    vae = train_vae.build().eval()
    with torch.no_grad():
        vae.quant_conv.bias[:4] += torch.tensor([3.0, -1.0, 0.5, 0.0])
        vae.quant_conv.weight[0] *= 5.0
    batch = picture_set.to_models(pixels)
    with torch.no_grad():
        before = vae.decode(vae.encode(batch).latent_dist.mode()).sample
        noise_before = vae.encode(batch).latent_dist.std
        scale_before = vae.encode(batch).latent_dist.mean.std(dim=(0, 2, 3))
    train_vae.normalise(vae, pixels)
    with torch.no_grad():
        after = vae.decode(vae.encode(batch).latent_dist.mode()).sample
        posterior = vae.encode(batch).latent_dist
    assert torch.allclose(after, before, atol=1e-4)
    signal_to_noise = posterior.mean.std(dim=(0, 2, 3)) / posterior.std.mean(dim=(0, 2, 3))
    assert torch.allclose(signal_to_noise, scale_before / noise_before.mean(dim=(0, 2, 3)), rtol=1e-3)


def test_normalised_latents_have_mean_0_and_times_the_factor_standard_deviation_1(pixels: torch.Tensor) -> None:
    torch.manual_seed(0)
    vae = train_vae.build().eval()
    train_vae.normalise(vae, pixels)
    latents = train_vae.latents(vae, pixels)
    assert latents.shape == (len(pixels), 4, 8, 8)
    assert torch.allclose(latents.mean(dim=(0, 2, 3)), torch.zeros(4), atol=1e-3)
    assert torch.allclose(latents.std(dim=(0, 2, 3)), torch.ones(4), atol=1e-3)
    assert vae.config["scaling_factor"] != 1.0


def test_training_lowers_the_loss_and_repeats_itself(pixels: torch.Tensor) -> None:
    batch = picture_set.to_models(pixels[:16]).to(memory_format=torch.channels_last)
    first, second = (train_vae.train(pixels, (6, 6), seed=1) for _ in range(2))
    torch.manual_seed(1)
    untrained = train_vae.build()
    with torch.no_grad():
        assert train_vae.loss_of(first, batch) < 0.95 * train_vae.loss_of(untrained, batch)
    states = first.state_dict(), second.state_dict()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_the_mask_covers_the_shape_and_only_it() -> None:
    caption = captions.parse("a large red square in the centre on a white background")
    mask = train_vae.shape_mask(picture_set.to_models(picture_set.load([caption])))
    assert mask.shape == (1, 1, 64, 64)
    assert mask[0, 0, 32, 32] == 1.0
    assert mask[0, 0, :10].sum() == 0.0
    assert float(mask.mean()) == pytest.approx((2 * 0.88 * 0.3) ** 2, rel=0.1)


def test_psnr_of_a_known_error() -> None:
    black = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    assert train_vae.psnr_db(black, black + 1) == pytest.approx(48.13, abs=0.01)
