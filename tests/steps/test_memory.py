"""`python -m steps memory`: the figures that commands without torch reckon with are counted again."""

from pathlib import Path

import pytest

from params.families import SD3, VAE
from params.memory import denoiser_shape, family_of_denoiser, flops_at
from pipeline_definition.jobs.instances import model_of
from steps.memory import sample_figures
from steps.model.denoiser import Denoiser
from steps.model.families import denoiser_of
from steps.model.families.sd3 import Sd3
from steps.model.families.unet import UNet
from steps.model.pretrained import empty_model, empty_text_encoders, part_config
from steps.model.token_lengths import token_lengths
from steps.training.peak_memory import matrix_parameter_count, parameter_count
from tests.steps.model.published import write_published
from tests.steps.training.tiny_model import write_pretrained
from tests.steps.training.tiny_sd3 import write_sd3


@pytest.mark.parametrize("name", ["Stable Diffusion 2", "Stable Diffusion 3 Medium", "Stable Diffusion 3 1B"])
def test_the_recorded_figures_are_what_torch_counts(tmp_path: Path, name: str) -> None:
    folder, recorded = write_published(tmp_path, name), model_of(None, name)
    assert recorded is not None
    denoiser = denoiser_of(folder)
    config, vae = denoiser.config(folder), empty_model("AutoencoderKL", part_config(folder, VAE))
    texts, lengths = empty_text_encoders(folder, denoiser.family), token_lengths(folder, denoiser.family)
    assert recorded.denoiser == denoiser_shape(config)
    assert recorded.sample == sample_figures(denoiser, config, vae, texts, lengths, max(recorded.sample.denoiser_train))
    network = denoiser.empty(config)
    assert recorded.denoiser_parameters == parameter_count(network)
    assert recorded.denoiser_matrix_parameters == matrix_parameter_count(network)
    assert recorded.text_encoder_parameters == sum(map(parameter_count, texts.values()))
    assert recorded.vae_parameters == parameter_count(vae)
    assert family_of_denoiser(recorded.denoiser) is denoiser.family


@pytest.mark.parametrize("denoiser", [UNet(), Sd3()])
def test_flops_between_the_counted_sizes_are_exact(tmp_path: Path, denoiser: Denoiser) -> None:
    folder = write_sd3(tmp_path) if denoiser.family is SD3 else write_pretrained(tmp_path)
    config = denoiser.config(folder)

    def counted(side: int) -> int:
        return denoiser.flops_of_sample(config, (config["in_channels"], side, side), positions=5)

    table = {side: counted(side) for side in (2, 4, 12)}
    assert [flops_at(table, side) for side in (2, 8)] == [counted(side) for side in (2, 8)]
    frozen = denoiser.flops_of_sample(config, (config["in_channels"], 8, 8), 5, lambda one: one.requires_grad_(False))
    assert 2 * frozen < counted(8) < 3.5 * frozen
