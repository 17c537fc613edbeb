"""The state that training changes and a checkpoint holds: weights, their moving average, the optimizer's moments.

Frozen weights are no part of it: beside a LoRA they are the starting weights, which the training's identity knows. All
of the state lives on every rank, or moments and average of a rank's pieces of the weights on that rank only (stage 1 of
ZeRO, pieces). AdamW and the average work element by element, so it does not matter who keeps what. The optimizer
is AdamW for everything, or Muon for the hidden matrices beside AdamW for the rest; it never waits for the device, and
decides itself whether a step is skipped.
"""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, Final, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from params.programs import TrainArguments
from steps.errors import StepError
from steps.training.pieces import Pieces, WeightPart, pieces_of, whole_parts
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


class Entry(NamedTuple):
    """A tensor of the state, as a checkpoint holds it and as this rank does."""

    group: str
    """The file of a checkpoint."""
    name: str
    like: Tensor
    """The whole, without values: on the meta device."""
    own: Tensor | None
    """What this rank keeps."""
    part: WeightPart | None
    """Which part of the whole that is; None for a count, which belongs to the whole parameter."""


class Optimizer:
    """Steps of AdamW and Muon, with the state of each parameter as in the first step."""

    def __init__(self, parts: Sequence[WeightPart], muon: Collection[int], arguments: TrainArguments) -> None:
        """Prepare the steps of some parameters, or of parts of them; Muon's, by their places, must be whole."""
        self.moments: dict[int, dict[str, Tensor]] = {}
        """Of each part, by the parameter's place and the names in a checkpoint."""
        self.trained = [part.stepped for part in parts]
        """What the steps change, in the order of the parts."""
        of_both: Any = {"lr": arguments.learning_rate, "weight_decay": arguments.weight_decay}
        betas = (arguments.adam_beta1, arguments.adam_beta2)
        others = [part.stepped for part in parts if part.place not in muon]
        # Loshchilov and Hutter 2019, arXiv:1711.05101. Fused: one kernel for all tensors on a GPU, and the device
        # decides whether to skip a step. A rank that keeps a part of the state may have matrices only.
        self._adamw: Any = torch.optim.AdamW(others, betas=betas, fused=True, **of_both) if others else None
        # Jordan et al. 2024, with steps as large as AdamW's (Liu et al. 2025, arXiv:2502.16982): one learning rate
        # and one weight decay serve both. One for each matrix: a step that may be skipped copies one matrix at a time.
        self.muons: list[Any] = []
        for part in parts:
            moments = first_moments(part.stepped, part.place in muon)
            self.moments[part.place] = {key: one if key == STEP else part.inside(one) for key, one in moments.items()}
            optimizer: Any = self._adamw
            if part.place in muon:
                optimizer = torch.optim.Muon([part.stepped], adjust_lr_fn="match_rms_adamw", **of_both)
                self.muons.append(optimizer)
            optimizer.state[part.stepped] = moments

    @torch.no_grad()
    def step(self, learning_rate: float, skipped: Tensor) -> None:
        """Change the parameters by their gradients; where `skipped` (float32, shape []) is 1, nothing changes."""
        if self._adamw is not None:
            # At 1 the fused kernels change nothing: torch's GradScaler skips a step this way.
            self._adamw.found_inf = skipped
            self._adamw.param_groups[0]["lr"] = learning_rate
            self._adamw.step()
        for muon in self.muons:
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
        self.places = {id(parameter): place for place, parameter in enumerate(self.parameters)}
        muon = arguments.optimizer == "muon"
        self.muon = {place for place, one in enumerate(trained.items()) if muon and is_matrix(*one)}
        """Places of Muon's matrices, which it needs whole: it makes the same of them on every rank."""
        if muon and not self.muon:
            raise StepError("optimizer muon: the model has no matrix inside its blocks; set adamw")
        self._arguments = arguments
        self.divided = arguments.shard_optimizer and world.size > 1
        """Whether each rank keeps moments and average of its pieces alone; until `divide` none keeps any."""
        self.pieces: list[Pieces] = []
        self._whole = whole_parts(self.parameters)
        self._keep([] if self.divided else self._whole)

    def divide(self, buckets: Sequence[Sequence[int]]) -> None:
        """Begin moments and average of this rank's pieces of DDP's buckets (places), if the ranks divide them."""
        if self.divided:
            self.pieces = pieces_of(self.parameters, buckets, self.muon, self._world)
            self._keep([part for pieces in self.pieces for part in pieces.parts])

    def _keep(self, parts: list[WeightPart]) -> None:
        self._kept = parts
        matrices = [self._whole[place] for place in sorted(self.muon)]
        self._stepped = [part for part in parts if part.place not in self.muon] + matrices
        self.optimizer = Optimizer(self._stepped, self.muon, self._arguments)
        self.average: WeightAverage | None = None
        if decay := self._arguments.ema_decay:
            kind = torch.bfloat16 if self._arguments.ema_precision == "bfloat16" else None
            self.average = WeightAverage(parts, decay, self._arguments.ema_reference_samples, kind)

    def gradient_norm(self) -> Tensor:
        """Return the norm of the whole gradient, from the ranks' pieces where they divide it.

        Added up in float64: so the order does not matter, and rounded to the gradients' dtype it is the same.
        """
        gradients = [part.tensor.grad for part in self._kept if part.tensor.grad is not None]
        square = torch.zeros((), dtype=torch.float64, device=self._world.device)
        if gradients:
            square = torch.stack(torch._foreach_norm(gradients, dtype=torch.float64)).square().sum()
        if self.divided:
            dist.all_reduce(square)
        return square.sqrt().to(self.parameters[0].dtype)

    def share(self, everything: bool = False) -> None:
        """Bring the ranks' pieces of the weights together, where each steps its own. Nothing waits for a GPU."""
        for pieces in self.pieces:
            if everything or not pieces.whole:
                pieces.share()

    def expected(self) -> Tensors:
        """Return what a checkpoint holds, by file and name, without values."""
        groups: Tensors = {}
        for entry in self._entries():
            groups.setdefault(entry.group, {})[entry.name] = entry.like
        return groups

    def restore(self, values: Tensors) -> None:
        """Take over the head's values, by file and name; all ranks call it, and the others pass none."""
        for entry in self._entries():
            value = self._world.broadcast(values[entry.group][entry.name] if values else None, entry.like)
            if entry.own is not None:
                entry.own.copy_(entry.part.of(value) if entry.part else value)

    def snapshot(self, copied: bool = True) -> Tensors:
        """Return every tensor in CPU memory, on the head; all ranks call it. Unless `copied`, a CPU's are live ones."""
        groups: Tensors = {}
        for entry in self._entries():
            whole = self._gathered(entry)
            if self._world.is_head:
                groups.setdefault(entry.group, {})[entry.name] = whole.to("cpu", copy=copied).contiguous()
        return groups

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Swap the moving average, if any, with the weights for a while, on all ranks; every bit comes back."""
        with self.average.swapped() if self.average is not None else nullcontext():
            self.share(everything=True)
            yield
        self.share(everything=True)

    def _entries(self) -> Iterator[Entry]:
        """Yield the state's tensors, in the same order on every rank."""
        stepped = {part.place: part for part in self._stepped}
        averages = self.average.tensors if self.average is not None else []
        averaged = {part.place: (average, part) for part, average in zip(self._kept, averages, strict=False)}
        for place, (name, parameter) in enumerate(zip(self.names, self.parameters, strict=True)):
            like = torch.empty_like(parameter, device="meta")
            yield Entry(WEIGHTS, name, like, parameter.detach(), self._whole[place])
            if self.average is not None:
                kind = self.average.dtype or like.dtype
                yield Entry(AVERAGE, name, like.to(kind), *averaged.get(place, (None, None)))
            own = self.optimizer.moments.get(place, {})
            for key, moment in first_moments(like, place in self.muon).items():
                part = None if key == STEP else stepped.get(place)
                yield Entry(OPTIMIZER, f"{key}.{name}", moment, own.get(key), part)

    def _gathered(self, entry: Entry) -> Tensor:
        """Return the whole tensor, put together from the ranks' parts."""
        if entry.own is not None and (not self.divided or (entry.part and entry.part.stretch is None)):
            return entry.own
        whole = torch.zeros_like(entry.like, device=self._world.device)
        if entry.own is not None:
            (entry.part.of(whole) if entry.part else whole).copy_(entry.own)
        # Byte by byte, and elsewhere is 0: so every bit is kept, and a count that several ranks have is what each has.
        dist.all_reduce(whole.as_strided((whole.numel(),), (1,)).view(torch.uint8), dist.ReduceOp.MAX)
        return whole
