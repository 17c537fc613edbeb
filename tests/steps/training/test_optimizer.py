"""AdamW, and Muon beside it: which parameters each has, torch's own steps, and a skipped step that changes nothing."""

import pytest
import torch
from torch import Tensor

from params.programs import TrainArguments
from steps.errors import StepError
from steps.training.pieces import whole_parts
from steps.training.ranks import World
from steps.training.state import OPTIMIZER, Optimizer, TrainingState, first_moments, is_matrix
from tests.steps.training.test_optimizer_step import Linear, NoReading
from tests.steps.training.tiny_model import tiny_unet

MUON = TrainArguments(optimizer="muon", learning_rate=0.1, weight_decay=0.03)
WORLD = World(rank=0, size=1, local_rank=0, device=torch.device("cpu"))


def parameters() -> dict[str, torch.nn.Parameter]:
    """A wide matrix, a high one, and what Muon does not train, with gradients."""
    torch.manual_seed(0)
    shapes = {
        "blocks.0.wide.weight": (4, 8),
        "blocks.1.high.weight": (9, 3),
        "blocks.1.high.bias": (9,),
        "time_embedding.weight": (8, 4),
        "conv_out.weight": (2, 4, 3, 3),
    }
    return {name: torch.nn.Parameter(torch.randn(shape)) for name, shape in shapes.items()}


def muon_optimizer(of: dict[str, torch.nn.Parameter]) -> Optimizer:
    matrices = [place for place, one in enumerate(of.items()) if is_matrix(*one)]
    return Optimizer(whole_parts(list(of.values())), matrices, MUON)


def give_gradients(of: dict[str, torch.nn.Parameter], seed: int) -> None:
    torch.manual_seed(seed)
    for parameter in of.values():
        parameter.grad = torch.randn_like(parameter)


def everything(optimizer: Optimizer, of: dict[str, torch.nn.Parameter]) -> list[Tensor]:
    moments = [tensor for moments in optimizer.moments.values() for tensor in moments.values()]
    return [tensor.detach().clone() for tensor in (*of.values(), *moments)]


def test_muon_has_the_matrices_inside_the_blocks_and_adamw_the_rest() -> None:
    named = dict(tiny_unet().named_parameters())
    matrices = {name for name, parameter in named.items() if is_matrix(name, parameter)}
    assert "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.weight" in matrices
    assert "up_blocks.0.resnets.0.time_emb_proj.weight" in matrices
    assert all(named[name].ndim == 2 for name in matrices)
    left = {name for name, parameter in named.items() if parameter.ndim == 2} - matrices
    assert left == {"time_embedding.linear_1.weight", "time_embedding.linear_2.weight"}


def test_each_step_is_torchs_own_at_one_learning_rate() -> None:
    ours, theirs = parameters(), parameters()
    optimizer = muon_optimizer(ours)
    matrices = [parameter for name, parameter in theirs.items() if is_matrix(name, parameter)]
    others = [parameter for name, parameter in theirs.items() if not is_matrix(name, parameter)]
    muon = torch.optim.Muon(matrices, weight_decay=0.03, adjust_lr_fn="match_rms_adamw")
    adamw = torch.optim.AdamW(others, weight_decay=0.03, fused=True)
    for seed, rate in ((1, 0.1), (2, 0.05)):
        give_gradients(ours, seed)
        give_gradients(theirs, seed)
        optimizer.step(rate, torch.zeros(()))
        for reference in (muon, adamw):
            reference.param_groups[0]["lr"] = rate
            reference.step()
    for name, parameter in ours.items():
        assert torch.equal(parameter, theirs[name]), name
    for reference in (muon, adamw):
        for parameter, expected in reference.state.items():
            (name,) = (name for name, one in theirs.items() if one is parameter)
            moments = optimizer.moments[list(ours).index(name)]
            assert moments.keys() == expected.keys()
            assert all(torch.equal(moments[key], expected[key]) for key in moments), name


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_skipped_step_changes_no_weight_and_no_moment(value: float) -> None:
    of = parameters()
    optimizer = muon_optimizer(of)
    give_gradients(of, 1)
    optimizer.step(0.1, torch.zeros(()))
    before = everything(optimizer, of)
    for parameter in of.values():
        parameter.grad = torch.full_like(parameter, value)
    optimizer.step(0.1, torch.ones(()))
    for tensor, expected in zip(everything(optimizer, of), before, strict=True):
        assert torch.equal(tensor.view(torch.int32), expected.view(torch.int32))
    give_gradients(of, 2)
    optimizer.step(0.1, torch.zeros(()))
    assert all(not torch.equal(*pair) for pair in zip(everything(optimizer, of), before, strict=True))


def test_a_step_reads_nothing_from_the_device() -> None:
    of = parameters()
    optimizer = muon_optimizer(of)
    give_gradients(of, 1)
    with NoReading():
        optimizer.step(0.1, torch.zeros(()))


def test_a_rank_may_keep_matrices_alone() -> None:
    of = {name: parameter for name, parameter in parameters().items() if is_matrix(name, parameter)}
    optimizer = muon_optimizer(of)
    before = everything(optimizer, of)
    give_gradients(of, 1)
    optimizer.step(0.1, torch.zeros(()))
    assert all(not torch.equal(*pair) for pair in zip(everything(optimizer, of), before, strict=True))


def test_a_checkpoint_names_the_moments_of_each_parameter() -> None:
    unet = tiny_unet()
    by_adamw, muon = (
        TrainingState(unet, arguments, WORLD).expected()[OPTIMIZER] for arguments in (TrainArguments(), MUON)
    )
    names = [name for name, _ in unet.named_parameters()]
    assert set(by_adamw) == {f"{key}.{name}" for name in names for key in ("step", "exp_avg", "exp_avg_sq")}
    matrices = {name for name, parameter in unet.named_parameters() if is_matrix(name, parameter)}
    assert {name for name in muon if name.startswith("momentum_buffer.")} == {
        f"momentum_buffer.{name}" for name in matrices
    }
    assert len(muon) == len(by_adamw) - 2 * len(matrices)
    assert first_moments(torch.empty(2, 3, device="meta"), muon=True)["momentum_buffer"].is_meta


def test_a_snapshot_without_copies_is_the_live_state() -> None:
    state = TrainingState(tiny_unet(), MUON, WORLD)
    live, again, copied = state.snapshot(copied=False), state.snapshot(copied=False), state.snapshot()
    for group, tensors in state.expected().items():
        for name in tensors:
            assert live[group][name].data_ptr() == again[group][name].data_ptr() != copied[group][name].data_ptr()
            assert torch.equal(copied[group][name], live[group][name])


def test_muon_without_a_matrix_to_train_is_refused() -> None:
    with pytest.raises(StepError, match="optimizer muon: the model has no matrix"):
        TrainingState(Linear(), MUON, WORLD)
