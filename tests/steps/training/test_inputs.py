"""Inputs: rows and their random numbers, cut into micro-batches."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from steps.data.loading.latents import LatentsDataset
from steps.model.families.unet import UNet
from steps.training.diffusion import Diffusion
from steps.training.draws import draw, draw_written
from steps.training.inputs import CaptionConditioning, InputMaker, Inputs
from tests.steps.training.tiny_model import CAPTION_LENGTH, LATENT_SHAPE

CPU = torch.device("cpu")
DIFFUSION = Diffusion(torch.linspace(0.99, 0.01, 1000), "epsilon")
ROWS = np.array([3, 40, 7, 9], dtype=np.int64)
POSITIONS = torch.tensor([100, 101, 102, 2**40])


def inputs(pretrained: Path, latents: Path, dropout: float = 0.0, offset: float = 0.0) -> Inputs:
    captions = CaptionConditioning(UNet().reader(pretrained, CAPTION_LENGTH, torch.float32), False, CPU)
    maker = InputMaker(5, dropout, offset, DIFFUSION, captions, CPU)
    return maker.training(LatentsDataset(latents).read("train", ROWS), POSITIONS)


def test_they_hold_the_rows_and_the_draws_of_their_positions(pretrained: Path, latents: Path) -> None:
    made = inputs(pretrained, latents)
    rows, draws = LatentsDataset(latents).read("train", ROWS), draw(5, POSITIONS.tolist(), LATENT_SHAPE)
    assert torch.equal(made.mean, rows.mean)
    assert torch.equal(made.noise, draws.noise)
    assert torch.equal(made.posterior, draws.posterior)
    assert torch.equal(made.timesteps, DIFFUSION.timestep_of(draws.timestep))
    assert torch.equal(made.captions, rows.token_ids)


@pytest.mark.parametrize("dropout", [0.3, 1.0])
def test_captions_are_dropped_by_their_own_draw(pretrained: Path, latents: Path, dropout: float) -> None:
    kept = inputs(pretrained, latents).captions
    made = inputs(pretrained, latents, dropout=dropout)
    dropped = (made.captions != kept).any(1)
    assert dropped.tolist() == (draw(5, POSITIONS.tolist(), LATENT_SHAPE).caption < dropout).tolist()
    assert torch.equal(made.noise, inputs(pretrained, latents).noise), "the dropout changes no other draw"


def test_offset_noise_is_shared_by_a_channel(pretrained: Path, latents: Path) -> None:
    difference = inputs(pretrained, latents, offset=0.5).noise - inputs(pretrained, latents).noise
    expected = 0.5 * draw(5, POSITIONS.tolist(), LATENT_SHAPE).offset
    torch.testing.assert_close(difference, expected.expand_as(difference), atol=1e-6, rtol=1e-5)


def test_micro_batches_are_the_inputs_in_pieces(pretrained: Path, latents: Path) -> None:
    made = inputs(pretrained, latents)
    pieces = list(made.micro_batches(3))
    assert [len(piece) for piece in pieces] == [3, 1]
    assert torch.equal(torch.cat([piece.noise for piece in pieces]), made.noise)
    assert torch.equal(torch.cat([piece.captions for piece in pieces]), made.captions)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_which_caption_a_sample_gets_is_a_function_of_seed_and_position(
    pretrained: Path, latents: Path, share: float
) -> None:
    captions = CaptionConditioning(UNet().reader(pretrained, CAPTION_LENGTH, torch.float32), False, CPU)
    rows = LatentsDataset(latents).read("train", np.arange(40) % 16)
    both = dataclasses.replace(rows, written_token_ids=rows.token_ids + 1)
    positions = torch.arange(1000, 1040)
    maker = InputMaker(5, 0.25, 0.1, DIFFUSION, captions, CPU, written_captions=share)
    made, plain = maker.training(both, positions), InputMaker(5, 0.25, 0.1, DIFFUSION, captions, CPU)
    without = plain.training(rows, positions)
    is_written, kept = (
        draw_written(5, positions.tolist(), share),
        draw(5, positions.tolist(), LATENT_SHAPE).caption >= 0.25,
    )
    assert is_written.tolist() == [bool(draw_written(5, [position], share)) for position in positions.tolist()]
    assert torch.equal((made.captions == without.captions + 1).all(1)[kept], is_written[kept])
    assert torch.equal(made.captions[~(is_written & kept)], without.captions[~(is_written & kept)])
    for name in ("mean", "noise", "posterior", "timesteps", "kept"):
        assert torch.equal(getattr(made, name), getattr(without, name)), name
    # Validation has the originals, whatever the share.
    draws = draw(0, positions.tolist(), LATENT_SHAPE)
    assert torch.equal(maker.whole(both, draws, made.timesteps).captions, rows.token_ids)


def test_the_shares_are_what_is_asked_for_and_stay_as_they_are() -> None:
    assert float(draw_written(3, range(4000), 0.3).double().mean()) == pytest.approx(0.3, abs=0.02)
    # A change here breaks the exact resumption of every training under way.
    assert "".join(map(str, draw_written(7, range(16), 0.5).int().tolist())) == "1111001000111010"
