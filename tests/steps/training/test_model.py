"""The UNet that is trained fits the latents, or is refused."""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.testing._internal.distributed.fake_pg import FakeStore

from params.programs import TrainArguments
from steps.data.loading.latents import LatentsDataset, LatentsManifest
from steps.errors import StepError
from steps.model.families import unet as unets
from steps.model.families.unet import UNet
from steps.training.gradients import Gradients
from steps.training.model import _set_up, build_network
from steps.training.ranks import World
from steps.training.state import TrainingState

UNET = UNet()
CPU = torch.device("cpu")
ARGUMENTS = TrainArguments(precision="float32", seed=4)


@pytest.fixture
def manifest(latents: Path) -> LatentsManifest:
    return LatentsDataset(latents).manifest


def test_from_scratch_the_seed_decides(pretrained: Path, manifest: LatentsManifest) -> None:
    unet = build_network(UNET, ARGUMENTS, pretrained, manifest, CPU)
    expected = UNET.new(pretrained, seed=4).state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in unet.state_dict().items())
    assert unet.training


def test_pretrained_weights_are_taken_over(pretrained: Path, manifest: LatentsManifest) -> None:
    arguments = ARGUMENTS.model_copy(update={"initial_weights": "pretrained", "precision": "float64"})
    unet = build_network(UNET, arguments, pretrained, manifest, CPU)
    expected = UNET.load(pretrained, torch.float64).state_dict()
    assert unet.dtype == torch.float64
    assert all(torch.equal(tensor, expected[name]) for name, tensor in unet.state_dict().items())


def test_the_configuration_says_which_size_was_learnt(pretrained: Path, manifest: LatentsManifest) -> None:
    larger = manifest.model_copy(update={"latent_shape": (4, 16, 16)})
    assert build_network(UNET, ARGUMENTS, pretrained, larger, CPU).config.sample_size == 16


def test_other_channels_are_refused(pretrained: Path, manifest: LatentsManifest) -> None:
    other = manifest.model_copy(update={"latent_shape": (8, 4, 4)})
    with pytest.raises(StepError, match="in_channels 4, but the latents have 8"):
        build_network(UNET, ARGUMENTS, pretrained, other, CPU)


def test_embeddings_of_another_width_are_refused(pretrained: Path, manifest: LatentsManifest) -> None:
    other = manifest.model_copy(update={"caption_embeddings": True, "embedding_width": 9})
    with pytest.raises(StepError, match="it reads embeddings 8 wide, but the captions' embeddings are 9 wide"):
        build_network(UNET, ARGUMENTS, pretrained, other, CPU)


@pytest.mark.parametrize("scores_at_once", [1, 64, 1 << 20])
def test_on_a_cpu_bfloat16_has_attention_that_gives_the_same(
    pretrained: Path, manifest: LatentsManifest, monkeypatch: pytest.MonkeyPatch, scores_at_once: int
) -> None:
    monkeypatch.setattr(unets, "SCORES_AT_ONCE", scores_at_once)
    torch.manual_seed(0)
    inputs = (torch.randn(2, 4, 4, 4), torch.tensor([3, 700]), torch.randn(2, 6, 8))
    plain = build_network(UNET, ARGUMENTS, pretrained, manifest, CPU)
    fast = build_network(UNET, ARGUMENTS.model_copy(update={"precision": "bfloat16"}), pretrained, manifest, CPU)
    kinds = [{type(p).__name__ for p in unet.attn_processors.values()} for unet in (plain, fast)]
    assert kinds == [{"AttnProcessor2_0"}, {"PiecewiseAttention"}]
    expected, found = (unet(*inputs, return_dict=False)[0] for unet in (plain, fast))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    for output in (expected, found):
        output.square().sum().backward()
    for name, parameter in plain.named_parameters():
        torch.testing.assert_close(fast.get_parameter(name).grad, parameter.grad, rtol=1e-3, atol=1e-4, msg=name)


def test_gradient_checkpointing_changes_no_gradient(pretrained: Path, manifest: LatentsManifest) -> None:
    gradients = []
    for checkpointing in (False, True):
        arguments = ARGUMENTS.model_copy(update={"gradient_checkpointing": checkpointing})
        unet = build_network(UNET, arguments, pretrained, manifest, CPU)
        torch.manual_seed(0)
        output = unet(torch.randn(2, 4, 4, 4), torch.tensor([3, 700]), torch.randn(2, 6, 8), return_dict=False)[0]
        output.square().sum().backward()
        gradients.append([parameter.grad for parameter in unet.parameters()])
    for plain, checkpointed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, checkpointed)


def test_cuda_graphs_are_asked_of_the_compiler(
    pretrained: Path, manifest: LatentsManifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, object]] = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **how: asked.append(how))
    for changes in ({}, {"compile": True}, {"compile": True, "cuda_graphs": True}):
        build_network(UNET, ARGUMENTS.model_copy(update=changes), pretrained, manifest, CPU)
    assert [how["mode"] for how in asked] == [None, "reduce-overhead"]
    with pytest.raises(StepError, match="cuda_graphs needs compile"):
        build_network(UNET, ARGUMENTS.model_copy(update={"cuda_graphs": True}), pretrained, manifest, CPU)


def test_on_a_gpu_weights_lie_channels_last_and_attention_is_fused(pretrained: Path) -> None:
    unet = UNET.new(pretrained, seed=4)
    UNET.set_up(unet, on_gpu=True, dtype=torch.bfloat16)
    weight = unet.conv_in.weight
    assert weight.is_contiguous(memory_format=torch.channels_last) and not weight.is_contiguous()
    assert {type(processor).__name__ for processor in unet.attn_processors.values()} == {"AttnProcessor2_0"}


class Countable(torch.nn.Module):
    """A module whose graphs are counted."""

    def __init__(self) -> None:
        super().__init__()
        self.graphs = 0

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        """Compute something."""
        return latents.sin() + 1

    def compile(self, **options: object) -> None:
        """Take over how often, not what is compiled."""
        assert options["dynamic"] is False

        def backend(graph: torch.fx.GraphModule, _: list[torch.Tensor]) -> Callable[..., object]:
            self.graphs += 1
            return graph.forward

        super().compile(dynamic=False, backend=backend)


def test_every_shape_of_a_bucket_has_a_compiled_graph_of_its_own() -> None:
    """By itself torch gives up after eight of them, and goes on without."""
    config: Any = importlib.import_module("torch._dynamo.config")
    unet, shapes = Countable(), [(2 + number, 20 - number) for number in range(12)]
    with config.patch(recompile_limit=8):
        _set_up(unet, ARGUMENTS.model_copy(update={"compile": True}), len(shapes))
        for _ in range(2):
            for height, width in shapes:
                unet(torch.zeros(1, 1, height, width))
    assert unet.graphs == len(shapes)


class Layers(torch.nn.Module):
    """Three matrices of 1.4 MiB; torch makes the first piece, whose gradients are there first, of 1 MiB."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList(torch.nn.Linear(600, 600) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Compute something."""
        for layer in self.layers:
            x = layer(x).sin()
        return x


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("divided", [False, True])
@pytest.mark.parametrize(("bucket_mb", "expected"), [(1, 3), (100, 2)])
def test_of_several_ranks_a_compiled_network_is_cut_where_gradients_are_sent(
    monkeypatch: pytest.MonkeyPatch, divided: bool, bucket_mb: int, expected: int
) -> None:
    graphs: list[torch.fx.GraphModule] = []

    def compiled(graph: torch.fx.GraphModule, *_: object, **__: object) -> Callable[..., object]:
        graphs.append(graph)
        return graph.forward

    torch.compiler.reset()
    monkeypatch.setattr("torch._inductor.compile_fx.compile_fx", compiled)
    network, world = Layers(), World(rank=0, size=2, local_rank=0, device=CPU)
    changes = {"compile": True, "gradient_bucket_mb": bucket_mb, "shard_optimizer": divided}
    arguments = ARGUMENTS.model_copy(update=changes)
    dist.init_process_group("fake", rank=0, world_size=2, store=FakeStore())
    try:
        _set_up(network, arguments, 1)
        Gradients(TrainingState(network, arguments, world), world, arguments).forward(torch.zeros(1, 600))
    finally:
        dist.destroy_process_group()
    assert len(graphs) == expected
