"""The state that training changes and a checkpoint holds: weights, their moving average, the optimizer's moments.

Frozen weights are no part of it: beside a LoRA they are the starting weights, which the training's identity knows. All
of the state lives on every rank, or moments and average of a rank's pieces of the weights on that rank only (stage 1 of
ZeRO, flat_buffers). AdamW and the average work element by element, so the result is the same to the bit. The optimizer
is AdamW for everything, or Muon for the hidden matrices beside AdamW for the rest; it never waits for the device, and
decides itself whether a step is skipped.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from params.programs import TrainArguments
from steps.errors import StepError
from steps.training.flat_buffers import Part, flat_buffers, whole_parts
from steps.training.ranks import World
from steps.training.weight_average import WeightAverage

WEIGHTS: Final = "weights"
AVERAGE: Final = "average"
OPTIMIZER: Final = "optimizer"
STEP: Final = "step"
MUON_MOMENT: Final = "momentum_buffer"
Tensors = dict[str, dict[str, Tensor]]


def is_matrix(name: str, parameter: Tensor) -> bool:
    """Return whether Muon may train a parameter: the 2-D weight of a layer inside the denoiser's blocks.

    In a UNet these are attention, feed-forward and the projections of the time. Embeddings and the output layer lie
    outside the blocks: Muon is not made for them (Jordan et al. 2024). Convolutions are left out: torch's Muon takes
    2-D weights only.
    """
    return parameter.ndim == 2 and "block" in name.partition(".")[0]


class Column(NamedTuple):
    """One kind of tensors of the state, such as all first moments."""

    group: str
    """The file of a checkpoint that holds them."""
    prefix: str
    """Before the parameters' names."""
    places: Sequence[int]
    """Of the parameters that have one."""
    own: Mapping[int, tuple[Part, Tensor]]
    """This rank's, by place, and which part of each it is."""
    is_whole: bool
    """Whether every rank has all of them."""
    dtype: torch.dtype | None = None
    """None: the parameter's."""


class Optimizer:
    """Steps of AdamW and Muon, with the state of each parameter as in the first step."""

    def __init__(self, parts: Sequence[Part], muon: Collection[int], arguments: TrainArguments) -> None:
        """Prepare the steps of some parameters, or of parts of them; Muon's, by their places, must be whole."""
        self.moments: dict[int, dict[str, Tensor]] = {}
        """Of each part, by the parameter's place and the names in a checkpoint."""
        self.trained = [part.tensor for part in parts]
        """What the steps change, in the order of the parts."""
        of_both: Any = {"lr": arguments.learning_rate, "weight_decay": arguments.weight_decay}
        betas = (arguments.adam_beta1, arguments.adam_beta2)
        others = [part.tensor for part in parts if part.place not in muon]
        # Loshchilov and Hutter 2019, arXiv:1711.05101. Fused: one kernel for all tensors on a GPU, and the device
        # decides whether to skip a step. A rank that keeps a part of the state may have matrices only.
        self._adamw: Any = torch.optim.AdamW(others, betas=betas, fused=True, **of_both) if others else None
        # Jordan et al. 2024, with steps as large as AdamW's (Liu et al. 2025, arXiv:2502.16982): one learning rate
        # and one weight decay serve both. One for each matrix: a step that may be skipped copies one matrix at a time.
        self._muons: list[Any] = []
        for part in parts:
            moments = self.moments[part.place] = first_moments(part.tensor, part.place in muon)
            optimizer: Any = self._adamw
            if part.place in muon:
                optimizer = torch.optim.Muon([part.tensor], adjust_lr_fn="match_rms_adamw", **of_both)
                self._muons.append(optimizer)
            optimizer.state[part.tensor] = moments

    @torch.no_grad()
    def step(self, learning_rate: float, skipped: Tensor) -> None:
        """Change the parameters by their gradients; where `skipped` (float32, shape []) is 1, nothing changes."""
        if self._adamw is not None:
            # At 1 the fused kernels change nothing: torch's GradScaler skips a step this way.
            self._adamw.found_inf = skipped
            self._adamw.param_groups[0]["lr"] = learning_rate
            self._adamw.step()
        for muon in self._muons:
            (group,) = muon.param_groups
            group["lr"] = learning_rate
            (matrix,) = group["params"]
            changed = (matrix, muon.state[matrix][MUON_MOMENT])
            before = [tensor.clone() for tensor in changed]
            muon.step()
            for tensor, former in zip(changed, before, strict=True):
                torch.where(skipped.bool(), former, tensor, out=tensor)


def first_moments(parameter: Tensor, muon: bool) -> dict[str, Tensor]:
    """Return the optimizer's own state of a parameter before its first step."""
    zeros = torch.zeros_like(parameter.detach(), memory_format=torch.preserve_format)
    if muon:
        return {MUON_MOMENT: zeros}
    step = torch.zeros((), dtype=torch.float32, device=parameter.device)
    return {STEP: step, "exp_avg": zeros, "exp_avg_sq": zeros.clone()}


class TrainingState:
    """A network, the optimizer of its weights, and their moving average."""

    def __init__(self, network: Any, arguments: TrainArguments, world: World) -> None:
        """Prepare a training that has seen no samples."""
        self.network, self._world = network, world
        trained = {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}
        self.names = list(trained)
        self.parameters: list[Tensor] = list(trained.values())
        self.divided = arguments.shard_optimizer and world.size > 1
        """Whether each rank keeps moments and average of its pieces alone."""
        muon = [arguments.optimizer == "muon" and is_matrix(*one) for one in trained.items()]
        if arguments.optimizer == "muon" and not any(muon):
            raise StepError("optimizer muon: the model has no matrix inside its blocks; set adamw")
        self._muon = {place for place, by_muon in enumerate(muon) if by_muon}
        # Muon needs whole matrices, and makes the same of them on every rank.
        whole = [by_muon or not self.divided for by_muon in muon]
        most_bytes = arguments.gradient_bucket_mb << 20
        self.buffers = flat_buffers(self.parameters, muon, whole, world, most_bytes) if world.size > 1 else []
        """Of several ranks: the memory of all trained weights and their gradients."""
        self._whole = self._kept = self._stepped = whole_parts(self.parameters)
        if self.divided:
            self._kept = [part for buffer in self.buffers for _, part in buffer.parts()]
            self._stepped = [part for part in self._kept if part.place not in self._muon]
            self._stepped += [part for part in self._whole if part.place in self._muon]
        self.optimizer = Optimizer(self._stepped, self._muon, arguments)
        self.average: WeightAverage | None = None
        if decay := arguments.ema_decay:
            kind = torch.bfloat16 if arguments.ema_precision == "bfloat16" else None
            self.average = WeightAverage(self._kept, decay, arguments.ema_reference_samples, kind)

    def gradient_norm(self) -> Tensor:
        """Return the norm of the whole gradient, from the ranks' pieces: the same bits whoever keeps the optimizer."""
        if not self.buffers:
            gradients = (parameter.grad for parameter in self.parameters)
            return torch.nn.utils.get_total_norm([gradient for gradient in gradients if gradient is not None])
        norm = torch.nn.utils.get_total_norm([buffer.own(buffer.gradients) for buffer in self.buffers])
        norms = norm.new_empty(self._world.size)
        dist.all_gather_single(norms, norm.reshape(1))
        whole: Tensor = torch.linalg.vector_norm(norms)
        return whole

    def share(self, everything: bool = False) -> None:
        """Bring the ranks' pieces of the weights together, where each steps its own. Nothing waits for a GPU."""
        sent: list[Any] = [
            dist.all_gather_single(buffer.weights, buffer.own(buffer.weights), async_op=True)
            for buffer in self.buffers
            if not buffer.whole or (everything and self.divided)
        ]
        for work in sent:
            work.wait()

    def expected(self) -> Tensors:
        """Return what a checkpoint holds, by file and name, without values."""
        groups: Tensors = {}
        for column in self._columns():
            groups.setdefault(column.group, {}).update({name: like for name, _, like in self._named(column)})
        return groups

    def restore(self, values: Tensors) -> None:
        """Take over the head's values, by file and name; all ranks call it, and the others pass none."""
        for column in self._columns():
            for name, place, like in self._named(column):
                value = self._world.broadcast(values[column.group][name] if values else None, like)
                if place in column.own:
                    part, tensor = column.own[place]
                    # A scalar belongs to the whole parameter.
                    tensor.copy_(part.of(value) if tensor.ndim else value)

    def snapshot(self, copied: bool = True) -> Tensors:
        """Return every tensor in CPU memory, on the head; all ranks call it. Unless `copied`, a CPU's are live ones."""
        groups: Tensors = {}
        for column in self._columns():
            for place, whole in self._gathered(column):
                if self._world.is_head:
                    tensor = whole.to("cpu", copy=copied).contiguous()
                    groups.setdefault(column.group, {})[column.prefix + self.names[place]] = tensor
        return groups

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Swap the moving average, if any, with the weights for a while, on all ranks; every bit comes back."""
        if self.average is None:
            yield
            return
        with self.average.swapped():
            self.share(everything=True)
            yield
        self.share(everything=True)

    def _columns(self) -> Iterator[Column]:
        places, moments = range(len(self.parameters)), self.optimizer.moments
        yield Column(WEIGHTS, "", places, {part.place: (part, part.tensor.detach()) for part in self._whole}, True)
        if average := self.average:
            own = {part.place: (part, tensor) for part, tensor in zip(self._kept, average.tensors, strict=True)}
            yield Column(AVERAGE, "", places, own, not self.divided, average.dtype)
        for key in (STEP, "exp_avg", "exp_avg_sq", MUON_MOMENT):
            of = [place for place in places if (place in self._muon) == (key == MUON_MOMENT)]
            own = {part.place: (part, moments[part.place][key]) for part in self._stepped if part.place in of}
            yield Column(OPTIMIZER, f"{key}.", of, own, key == MUON_MOMENT or not self.divided)

    def _named(self, column: Column) -> Iterator[tuple[str, int, Tensor]]:
        """Yield the names, places and shapes of a column's tensors, these on the meta device."""
        step = torch.empty((), device="meta")
        for place in column.places:
            like = torch.empty_like(self.parameters[place], dtype=column.dtype, device="meta")
            yield column.prefix + self.names[place], place, step if column.prefix == f"{STEP}." else like

    def _gathered(self, column: Column) -> Iterator[tuple[int, Tensor]]:
        """Yield the place and the whole of each of a column's tensors."""
        own = {place: tensor for place, (_, tensor) in column.own.items()}
        if column.is_whole:
            yield from own.items()
        elif column.prefix == f"{STEP}.":
            steps = torch.zeros(len(self.names), device=self._world.device)
            for place, step in own.items():
                steps[place] = step
            dist.all_reduce(steps, dist.ReduceOp.MAX)
            yield from ((place, steps[place].clone()) for place in column.places)
        else:
            for buffer in self.buffers:
                if not buffer.whole or column.group == AVERAGE:
                    yield from buffer.gather(own, column.dtype)
