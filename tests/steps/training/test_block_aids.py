"""Tokens that skip blocks and blocks that are aligned: exact, in training alone, and nothing of them in the model."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from params.programs import TrainArguments
from steps.data.loading.latents import LatentsDataset
from steps.errors import StepError
from steps.model.families.sd3 import Sd3
from steps.training.block_aids import PROJECTOR, BlockAids, _pooling
from steps.training.diffusion import RectifiedFlow
from steps.training.draws import draw_routes
from steps.training.inputs import CaptionConditioning, InputMaker, Inputs
from steps.training.model import build_network
from steps.training.objective import Objective
from steps.training.starting_weights import check_starting_weights
from tests.steps.training.conftest import MakeJob
from tests.steps.training.jobs import Job
from tests.steps.training.tiny_model import write_latents, write_pretrained
from tests.steps.training.tiny_sd3 import ID_COUNT, LATENT_SHAPE, write_sd3

CPU, SD3 = torch.device("cpu"), Sd3()
BLOCKS = 6
FEATURES = (2, 2, 7)
BUCKETS = [(16, 4, 4), (16, 2, 8)]
ROUTED: dict[str, Any] = {"routing_fraction": 0.5}
ALIGNED: dict[str, Any] = {"alignment_weight": 0.5, "alignment_block": 3}
BASE = TrainArguments(prediction_type="flow", precision="float64", seed=3)


@pytest.fixture(scope="module")
def sd3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_sd3(tmp_path_factory.mktemp("sd3") / "pretrained")
    config = folder / "transformer" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"num_layers": BLOCKS}))
    return folder


@pytest.fixture(scope="module")
def sd3_latents(sd3: Path) -> Path:
    of = {"shape": LATENT_SHAPE, "caption_length": ID_COUNT, "features": FEATURES, "buckets": BUCKETS}
    return write_latents(sd3.with_name("latents"), sd3, train=24, **of)


class World:
    """A network with its aids, its objective and the inputs of a bucket."""

    def __init__(self, sd3: Path, latents: Path, changes: dict[str, Any], rows: slice = slice(0, 4)) -> None:
        self.arguments = BASE.model_copy(update=changes)
        self.dataset, process = LatentsDataset(latents), RectifiedFlow(1.0, dtype=torch.float64)
        captions = CaptionConditioning(SD3.reader(sd3, ID_COUNT, torch.float64), False, CPU)
        self.network = build_network(SD3, self.arguments, sd3, self.dataset.manifest, CPU)
        self.aids = BlockAids(SD3, self.arguments, SD3.config(sd3), self.dataset.manifest) if changes else None
        if self.aids is not None:
            self.aids.attach(self.network)
        numbers = torch.Generator().manual_seed(1)
        with torch.no_grad():
            # At first the modulations are 0 and no block changes a token.
            for name, parameter in self.network.named_parameters():
                if PROJECTOR not in name:
                    parameter.normal_(0.0, 0.2, generator=numbers)
        self.objective = Objective(SD3, process, captions, 1.5, "float64", CPU, aids=self.aids)
        self.maker = InputMaker(3, 0.1, 0.0, process, captions, CPU, aids=self.aids)
        self.inputs = self.of_rows(np.arange(rows.start, rows.stop))

    def of_rows(self, rows: Any) -> Inputs:
        return self.maker.training(self.dataset.read("train", rows), torch.from_numpy(rows))

    def gradients(self) -> list[Tensor]:
        losses = self.objective.weighted_losses(self.network, self.inputs)
        losses.sum().backward()
        return [
            losses.detach(),
            *(parameter.grad for parameter in self.network.parameters() if parameter.grad is not None),
        ]


def by_hand(network: Any, noisy: Tensor, timesteps: Tensor, conditions: Any, routes: Tensor) -> tuple[Tensor, Tensor]:
    """Return the prediction whose tokens outside of `routes` skip blocks 3 and 4, and what passes block 3."""
    tokens, text = network.pos_embed(noisy), network.context_embedder(conditions[0])
    temb = network.time_text_embed(timesteps, conditions[1])
    whole = middle = tokens
    row = torch.arange(len(tokens))[:, None]
    for number, block in enumerate(network.transformer_blocks, 1):
        if number == 3:
            whole, tokens = tokens, tokens[row, routes]
        text, tokens = block(tokens, text, temb)
        middle = tokens if number == 3 else middle
        if number == 4:
            tokens, part = whole.clone(), tokens
            tokens[row, routes] = part
    tokens = network.proj_out(network.norm_out(tokens, temb))
    n, _, height, width = noisy.shape
    patches = tokens.reshape(n, height // 2, width // 2, 2, 2, 16)
    return patches.permute(0, 5, 1, 3, 2, 4).reshape(noisy.shape), middle


def test_routed_tokens_skip_the_blocks_and_are_put_back(sd3: Path, sd3_latents: Path) -> None:
    world = World(sd3, sd3_latents, ROUTED | ALIGNED)
    aids, inputs = world.aids, world.inputs
    assert aids is not None and inputs.routes is not None and inputs.routes.shape == (4, 2)
    conditions = tuple(one.double() for one in world.objective._captions.encode(inputs.captions))
    noisy = inputs.noise.double()
    aids.prepare(LATENT_SHAPE, inputs.routes, noisy)
    found = SD3.forward(world.network, noisy, inputs.timesteps, conditions)
    expected, middle = by_hand(world.network, noisy, inputs.timesteps, conditions, inputs.routes)
    torch.testing.assert_close(found, expected)
    # A grid of 2 x 2 tokens is the grid of the features: two cells have a token each, and two have none.
    cells, row = inputs.features.double().flatten(1, 2), torch.arange(4)[:, None]
    projector = world.network.get_submodule(PROJECTOR)
    cosines = torch.nn.functional.cosine_similarity(projector(middle), cells[row, inputs.routes], dim=-1)
    torch.testing.assert_close(aids.losses(inputs.features), 0.5 * (1 - cosines).mean(1))
    with torch.no_grad():
        plain = World(sd3, sd3_latents, {})
        assert torch.equal(world.objective.losses(world.network, inputs), plain.objective.losses(plain.network, inputs))


@pytest.mark.parametrize("how", ["checkpointing", "compile", "both"])
def test_checkpointing_and_compiling_change_no_gradient(sd3: Path, sd3_latents: Path, how: str) -> None:
    expected = World(sd3, sd3_latents, ROUTED | ALIGNED).gradients()
    world = World(sd3, sd3_latents, ROUTED | ALIGNED | {"gradient_checkpointing": how != "compile"})
    if how != "checkpointing":
        world.network.compile(dynamic=False, fullgraph=True, backend="aot_eager")
    for one, other in zip(world.gradients(), expected, strict=True):
        torch.testing.assert_close(one, other)


def test_routes_depend_on_seed_and_position_alone() -> None:
    together = draw_routes(5, range(20, 30), tokens=64, kept=40)
    assert torch.equal(together, torch.cat([draw_routes(5, [position], 64, 40) for position in range(20, 30)]))
    assert not torch.equal(together, draw_routes(6, range(20, 30), 64, 40))
    assert (together.diff(dim=1) > 0).all() and len({tuple(row) for row in together.tolist()}) == 10
    counts = torch.bincount(draw_routes(0, range(2000), 64, 32).flatten(), minlength=64)
    assert (counts > 850).all() and (counts < 1150).all()


@pytest.mark.parametrize("grid", [(4, 4), (3, 6), (8, 2), (1, 5)])
def test_tokens_are_averaged_over_the_cells_of_the_features(grid: tuple[int, int]) -> None:
    tokens = torch.randn(1, 5, *grid)
    expected = torch.nn.functional.adaptive_avg_pool2d(tokens, 2).flatten(2).transpose(1, 2)
    torch.testing.assert_close(_pooling(grid, 2) @ tokens.flatten(2).transpose(1, 2), expected)


def test_alignment_ends_with_its_samples_and_then_changes_nothing(sd3: Path, sd3_latents: Path) -> None:
    world = World(sd3, sd3_latents, ALIGNED | {"alignment_samples": 2})
    plain = World(sd3, sd3_latents, {})
    more = world.objective.weighted_losses(world.network, world.inputs) - plain.objective.weighted_losses(
        plain.network, plain.inputs
    )
    assert (more[:2] > 0).all() and torch.equal(more[2:], torch.zeros(2, dtype=torch.float64))
    more[2:].sum().backward()
    projector = world.network.get_submodule(PROJECTOR)
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in projector.parameters())


def test_routed_tokens_cost_less(sd3: Path, sd3_latents: Path) -> None:
    manifest = LatentsDataset(sd3_latents).manifest
    config = SD3.config(sd3) | {"num_layers": 24, "sample_size": 64, "pos_embed_max_size": 64}

    def flops(**changes: Any) -> int:
        aids = BlockAids(SD3, BASE.model_copy(update=changes), config, manifest)
        return SD3.flops_of_sample(config, (16, 64, 64), 16, lambda network: aids.rehearse((16, 64, 64), network))

    whole, routed, below = flops(), flops(**ROUTED), flops(**ROUTED, routing_from_px=1024)
    assert whole == below == SD3.flops_of_sample(config, (16, 64, 64), 16)
    assert 0.25 * whole < routed < 0.55 * whole


TRAINING: dict[str, Any] = {
    "prediction_type": "flow",
    "training_samples": 48,
    "save_every_samples": 24,
    "validate_every_samples": 24,
    **ROUTED,
    **ALIGNED,
    "alignment_samples": 36,
}


def job_of(make_job: MakeJob, name: str, sd3: Path, latents: Path, **settings: Any) -> Job:
    job = make_job(name, **TRAINING | settings)
    for channel, source in (("pretrained", sd3), ("latents", latents)):
        link = job.base / "input" / "data" / channel
        link.unlink()
        link.symlink_to(source)
    return job


def weights_of(job: Job) -> dict[str, Tensor]:
    weights: dict[str, Tensor] = load_file(job.model_dir / "transformer" / "diffusion_pytorch_model.safetensors")
    return weights


def test_a_broken_training_ends_as_an_unbroken_one_and_exports_no_projector(
    make_job: MakeJob, sd3: Path, sd3_latents: Path
) -> None:
    whole, broken, plain = (job_of(make_job, name, sd3, sd3_latents) for name in ("whole", "broken", "plain"))
    plain.settings |= {"routing_fraction": 0.0, "alignment_weight": 0.0, "training_samples": 8}
    plain.write(sd3, sd3_latents).run()
    whole.run()
    for length in (24, 48):
        broken.settings["training_samples"] = length
        broken.write(sd3, sd3_latents).run()
    expected, found = weights_of(whole), weights_of(broken)
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    shapes = [{name: tensor.shape for name, tensor in weights_of(job).items()} for job in (whole, plain)]
    assert shapes[0] == shapes[1]
    configs = [(job.model_dir / "transformer" / "config.json").read_text() for job in (whole, plain)]
    assert configs[0] == configs[1]
    state = load_file(whole.checkpoints[-1] / "weights.safetensors")
    assert state[f"{PROJECTOR}.4.weight"].shape == (FEATURES[-1], 16)


def test_two_ranks_that_divide_the_optimizer_end_as_one(make_job: MakeJob, sd3: Path, sd3_latents: Path) -> None:
    one = job_of(make_job, "one", sd3, sd3_latents, precision="float64")
    two = job_of(make_job, "two", sd3, sd3_latents, precision="float64", micro_batch_size=2, shard_optimizer=True)
    one.run()
    two.run(ranks=2)
    expected, found = weights_of(one), weights_of(two)
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-9, atol=1e-12)


def test_what_does_not_fit_is_refused_by_name(sd3: Path, sd3_latents: Path, tmp_path: Path) -> None:
    unet = write_pretrained(tmp_path / "unet")
    for name, value in (("routing_fraction", 0.5), ("alignment_weight", 0.5)):
        with pytest.raises(
            StepError, match=f"train.{name}: a StableDiffusionPipeline has no blocks of tokens; set it to 0"
        ):
            check_starting_weights(TrainArguments(**{name: value}), unet, unet)
    manifest, config = LatentsDataset(sd3_latents).manifest, SD3.config(sd3)

    def aids(of: Any = manifest, **changes: Any) -> BlockAids:
        return BlockAids(SD3, BASE.model_copy(update=ROUTED | ALIGNED | changes), config, of)

    with pytest.raises(StepError, match=r"train\.routing_fraction: of 4 blocks none could be skipped; set it to 0"):
        BlockAids(SD3, BASE.model_copy(update=ROUTED), config | {"num_layers": 4}, manifest)
    with pytest.raises(StepError, match=r"train\.alignment_block 7: the network has 6 blocks"):
        aids(alignment_block=7)
    bare = manifest.model_copy(update={"features_shape": ()})
    with pytest.raises(StepError, match=r"train\.alignment_weight: the latents hold no features; set encode\.features"):
        aids(bare)
    with pytest.raises(StepError, match="features are not those of the manifest; run encode again"):
        aids().draw(torch.arange(2), LATENT_SHAPE, torch.zeros(2, 2, 2, 6))
