"""The state that training changes and a checkpoint holds: weights, their moving average, the optimizer's moments.

Frozen weights are no part of it: beside a LoRA they are the starting weights, which the training's identity knows. All
of the state lives on every rank, or each parameter's part on one rank only: stage 1 of ZeRO (Rajbhandari et al. 2020,
arXiv:1910.02054). Then weights and gradients stay on every rank; a rank updates its own parameters and sends them to
the others. AdamW and the average work element by element, so the result is the same to the bit. The optimizer is AdamW
for everything, or Muon for the hidden matrices beside AdamW for the rest; it never waits for the device, and decides
itself whether a step is skipped.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import torch
import torch.distributed as dist
from torch import Tensor

from params.programs import TrainArguments
from steps.errors import StepError
from steps.model.weight_average import WeightAverage
from steps.training.ranks import World

WEIGHTS: Final = "weights"
AVERAGE: Final = "average"
OPTIMIZER: Final = "optimizer"
Tensors = dict[str, dict[str, Tensor]]


def is_matrix(name: str, parameter: Tensor) -> bool:
    """Return whether Muon may train a parameter: the 2-D weight of a layer inside the denoiser's blocks.

    In a UNet these are attention, feed-forward and the projections of the time. Embeddings and the output layer lie
    outside the blocks: Muon is not made for them (Jordan et al. 2024). Convolutions are left out: torch's Muon takes
    2-D weights only.
    """
    return parameter.ndim == 2 and "block" in name.partition(".")[0]


class Optimizer:
    """Steps of AdamW and Muon, with the state of each parameter as in the first step."""

    def __init__(self, parameters: Mapping[str, Tensor], arguments: TrainArguments) -> None:
        """Prepare the steps of some parameters, by name."""
        self.moments: dict[Tensor, dict[str, Tensor]] = {}
        """Of each parameter, by their names in a checkpoint."""
        kinds = {name: by_muon(name, parameter, arguments) for name, parameter in parameters.items()}
        matrices = [parameter for name, parameter in parameters.items() if kinds[name]]
        others = [parameter for name, parameter in parameters.items() if not kinds[name]]
        of_both: Any = {"lr": arguments.learning_rate, "weight_decay": arguments.weight_decay}
        betas = (arguments.adam_beta1, arguments.adam_beta2)
        # Loshchilov and Hutter 2019, arXiv:1711.05101. Fused: one kernel for all tensors on a GPU, and the device
        # decides whether to skip a step. A rank that keeps a part of the state may have matrices only.
        self._adamw: Any = torch.optim.AdamW(others, betas=betas, fused=True, **of_both) if others else None
        # Jordan et al. 2024, with steps as large as AdamW's (Liu et al. 2025, arXiv:2502.16982): one learning rate
        # and one weight decay serve both. One for each matrix: a step that may be skipped copies one matrix at a time.
        self._muons: list[Any] = [
            torch.optim.Muon([matrix], adjust_lr_fn="match_rms_adamw", **of_both) for matrix in matrices
        ]
        for optimizer in (self._adamw, *self._muons):
            for parameter in optimizer.param_groups[0]["params"] if optimizer is not None else ():
                moments = first_moments(parameter, muon=optimizer is not self._adamw)
                optimizer.state[parameter] = self.moments[parameter] = moments

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
            changed = (matrix, self.moments[matrix]["momentum_buffer"])
            before = [tensor.clone() for tensor in changed]
            muon.step()
            for tensor, former in zip(changed, before, strict=True):
                torch.where(skipped.bool(), former, tensor, out=tensor)


def by_muon(name: str, parameter: Tensor, arguments: TrainArguments) -> bool:
    """Return whether Muon trains a parameter under these settings."""
    return arguments.optimizer == "muon" and is_matrix(name, parameter)


def first_moments(parameter: Tensor, muon: bool) -> dict[str, Tensor]:
    """Return the optimizer's own state of a parameter before its first step."""
    zeros = torch.zeros_like(parameter.detach(), memory_format=torch.preserve_format)
    if muon:
        return {"momentum_buffer": zeros}
    step = torch.zeros((), dtype=torch.float32, device=parameter.device)
    return {"step": step, "exp_avg": zeros, "exp_avg_sq": zeros.clone()}


class Shards:
    """The parameters of a model, and which rank keeps the state of each."""

    def __init__(self, parameters: Sequence[Tensor], world: World, divided: bool) -> None:
        """Divide the state, or keep all of it on every rank. Raises StepError if a rank would get nothing."""
        self._parameters, self._world = [parameter.detach() for parameter in parameters], world
        self.divided = divided and world.size > 1
        """Whether each rank keeps only a part."""
        if self.divided and len(parameters) < world.size:
            raise StepError(f"shard_optimizer: {len(parameters)} parameters do not do for {world.size} ranks; unset it")
        sizes = [parameter.numel() for parameter in parameters]
        self._owners = owners(sizes, world.size) if self.divided else [world.rank] * len(sizes)

    @property
    def own(self) -> list[int]:
        """Places of the parameters whose moments and averages this rank keeps."""
        return [place for place, owner in enumerate(self._owners) if owner == self._world.rank]

    def share(self) -> None:
        """Send each parameter from its owner to every rank. Nothing waits for a GPU."""
        if not self.divided:
            return
        pairs = zip(self._parameters, self._owners, strict=True)
        sent: list[Any] = [dist.broadcast(flat(parameter), owner, async_op=True) for parameter, owner in pairs]
        for work in sent:
            work.wait()

    def gather(self, place: int, tensor: Tensor) -> Tensor:
        """Return the owner's tensor of a parameter on every rank; the others pass a tensor on the meta device."""
        if not self.divided:
            return tensor
        whole = tensor.contiguous()
        if whole.is_meta:
            whole = torch.empty(whole.shape, dtype=whole.dtype, device=self._world.device)
        dist.broadcast(whole, self._owners[place])
        return whole


def owners(sizes: Sequence[int], ranks: int) -> list[int]:
    """Return the rank of each parameter: the largest first, to the rank that has least so far."""
    loads, ranks_of = [0] * ranks, [0] * len(sizes)
    for place in sorted(range(len(sizes)), key=lambda place: -sizes[place]):
        ranks_of[place] = loads.index(min(loads))
        loads[ranks_of[place]] += sizes[place]
    return ranks_of


def flat(tensor: Tensor) -> Tensor:
    """Return a view of a dense tensor in memory order: a broadcast does not accept channels last as contiguous."""
    order = sorted(range(tensor.dim()), key=tensor.stride, reverse=True)
    return tensor.permute(order)


class TrainingState:
    """A network, the optimizer of its weights, and their moving average."""

    def __init__(self, network: Any, arguments: TrainArguments, world: World) -> None:
        """Prepare a training that has seen no samples."""
        self.network, self._is_head = network, world.is_head
        trained = {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}
        self.names = list(trained)
        self.parameters: list[Tensor] = list(trained.values())
        self.shards = Shards(self.parameters, world, arguments.shard_optimizer)
        self._arguments = arguments
        if arguments.optimizer == "muon" and not any(is_matrix(*one) for one in trained.items()):
            raise StepError("optimizer muon: the model has no matrix inside its blocks; set adamw")
        own = {self.names[place]: self.parameters[place] for place in self.shards.own}
        self.optimizer = Optimizer(own, arguments)
        self.average: WeightAverage | None = None
        if decay := arguments.ema_decay:
            kind = torch.bfloat16 if arguments.ema_precision == "bfloat16" else None
            places, reference = self.shards.own, arguments.ema_reference_samples
            self.average = WeightAverage(list(own.values()), decay, reference, kind, places)

    def tensors(self) -> Tensors:
        """Return the live tensors, by file and name, to restore by writing; another rank's are on the meta device."""
        groups: Tensors = {}
        for group, name, _, tensor in self._entries():
            groups.setdefault(group, {})[name] = tensor
        return groups

    def snapshot(self, copied: bool = True) -> Tensors:
        """Return every tensor in CPU memory, on the head; all ranks call it. Unless `copied`, a CPU's are live ones."""
        groups: Tensors = {}
        for group, name, place, tensor in self._entries():
            whole = tensor if group == WEIGHTS else self.shards.gather(place, tensor)
            if self._is_head:
                groups.setdefault(group, {})[name] = whole.to("cpu", copy=copied).contiguous()
        return groups

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Swap the moving average, if any, with the weights for a while, on all ranks; every bit comes back."""
        if self.average is None:
            yield
            return
        with self.average.swapped():
            self.shards.share()
            yield
        self.shards.share()

    def _entries(self) -> Iterator[tuple[str, str, int, Tensor]]:
        """Yield (file, name, place of the parameter, tensor)."""
        averages = dict(zip(self.shards.own, self.average.tensors, strict=True)) if self.average is not None else {}
        kind = next((average.dtype for average in averages.values()), None)
        for place, (name, parameter) in enumerate(zip(self.names, self.parameters, strict=True)):
            yield WEIGHTS, name, place, parameter.detach()
            if self.average is not None:
                elsewhere = torch.empty(parameter.shape, dtype=kind, device="meta")
                yield AVERAGE, name, place, averages.get(place, elsewhere)
            muon = by_muon(name, parameter, self._arguments)
            moments = self.optimizer.moments.get(parameter) or first_moments(parameter.to("meta"), muon)
            for key in sorted(moments):
                yield OPTIMIZER, f"{key}.{name}", place, moments[key]
