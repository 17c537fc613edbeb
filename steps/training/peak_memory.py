"""The peak memory of a training step and of encoding, by fake tensors: shapes without values, in seconds, anywhere.

Reads configurations as diffusers saves them; writes nothing, and needs no GPU. Every tensor of a real forward and
backward pass is followed from its making to its end, recomputation and the backward pass's own tensors included. What
libraries take for themselves (CUDA's context, workspaces, fragments) is not in it. Torch's own MemTracker gives the
same bytes in ten times the time, for it keeps figures of each module.
"""

import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import torch
import torch.nn.functional as F  # noqa: N812 (its usual name)
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from params.memory import CHECKED_PICTURES, state_bytes
from params.programs import TrainArguments
from steps.model.denoiser import Denoiser
from steps.model.pretrained import empty_model
from steps.training.objective import FORWARD_DTYPES, WEIGHT_DTYPES
from steps.training.state import is_matrix

RGB: Final = 3


class LivingBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the memory of the tensors that operations return, as long as anybody holds it."""

    def __init__(self, model: Any) -> None:
        """Begin with a model's weights and their gradients."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = self.before = self._now = 0
        self._known: set[int] = set()
        for parameter in model.parameters():
            self._count(parameter)
            if parameter.grad is not None:
                self._count(parameter.grad)
        self.before = self._now

    def __torch_dispatch__(
        self, operation: Any, kinds: Any, arguments: Any = (), options: dict[str, Any] | None = None
    ) -> Any:
        """Run an operation and count what it made."""
        made = operation(*arguments, **(options or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                self._count(tensor)
        return made

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key not in self._known:
            self._known.add(key)
            self._now += size
            self.peak = max(self.peak, self._now)
            weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self._now -= size


class FakeNetwork:
    """A network of fake tensors in training mode: weights and gradients take no memory, and passes take none."""

    def __init__(
        self,
        denoiser: Denoiser,
        config: Mapping[str, Any],
        precision: str,
        gradient_checkpointing: bool,
        on_gpu: bool = True,
        keeps_gradients: bool = True,
    ) -> None:
        """Prepare a network as training sets it up; with ranks or accumulation a pass finds gradients kept."""
        self._dtype, self._on_gpu, self.keeps_gradients = FORWARD_DTYPES[precision], on_gpu, keeps_gradients
        self._denoiser, self._mode = denoiser, FakeTensorMode(allow_non_fake_inputs=True)
        self._network = denoiser.empty(config)
        self._network.train()
        if gradient_checkpointing:
            self._network.enable_gradient_checkpointing()
        if not on_gpu:
            denoiser.set_up(self._network, on_gpu, self._dtype)
        self.parameters, self.matrix_parameters = parameter_count(self._network), matrix_parameter_count(self._network)
        with self._mode:
            self._network.to_empty(device="cpu")
            for parameter in self._network.parameters() if keeps_gradients else ():
                parameter.grad = torch.empty_like(parameter)

    def pass_bytes(self, micro_batch_size: int, latent_shape: tuple[int, int, int], positions: int) -> int:
        """Return the peak of a forward and backward pass, beyond weights and kept gradients; latents (C, H, W)."""
        half = self._dtype == torch.bfloat16
        with self._mode:
            latents = torch.empty(micro_batch_size, *latent_shape)
            timesteps = torch.zeros(micro_batch_size, dtype=torch.int64)
            shapes = self._denoiser.condition_shapes(self._network.config, positions)
            conditions = tuple(torch.empty(micro_batch_size, *shape, dtype=self._dtype) for shape in shapes)
            living = LivingBytes(self._network)
            with living, _norms_of_cuda(half and self._on_gpu):
                with torch.autocast("cpu", torch.bfloat16, enabled=half):
                    prediction = self._denoiser.forward(self._network, latents, timesteps, conditions)
                losses = (prediction.float() - torch.empty_like(latents)).square().flatten(1).mean(1)
                backward: Any = losses.sum().backward
                backward()
        peak = living.peak - living.before
        if not self.keeps_gradients:
            self._network.zero_grad(set_to_none=True)
        return peak


def training_peak_bytes(
    network: FakeNetwork, arguments: TrainArguments, latent_shape: tuple[int, int, int], positions: int
) -> float:
    """Return the peak of one rank that trains alone, the text encoder left out."""
    state = state_bytes(network.parameters, network.matrix_parameters, arguments, ranks=1)
    gradients = 0 if network.keeps_gradients else network.parameters * WEIGHT_DTYPES[arguments.precision].itemsize
    return state - gradients + network.pass_bytes(arguments.micro_batch_size, latent_shape, positions)


def encoding_bytes(config: Mapping[str, Any], dtype: torch.dtype, batch_size: int, side_px: int) -> int:
    """Return the peak of a worker of Encode with a VAE: its weights, a batch, and the pictures that it checks."""
    # Past diffusers' own `to`, which warns of dtypes that it keeps.
    vae: Any = torch.nn.Module.to(empty_model("AutoencoderKL", config).eval().requires_grad_(False), dtype)
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        vae.to_empty(device="cpu")
        living = LivingBytes(vae)
        with living:
            pixels = torch.empty(batch_size, RGB, side_px, side_px, dtype=dtype)
            posterior = vae.encode(pixels).latent_dist
            mean, _ = posterior.mean, posterior.std
            del pixels, posterior
            vae.decode(mean[:CHECKED_PICTURES])
    return living.peak


def parameter_count(model: Any) -> int:
    """Return how many weights a model has."""
    return sum(parameter.numel() for parameter in model.parameters())


def matrix_parameter_count(model: Any) -> int:
    """Return how many of a model's weights Muon may train."""
    return sum(parameter.numel() for name, parameter in model.named_parameters() if is_matrix(name, parameter))


@contextmanager
def _norms_of_cuda(applied: bool) -> Iterator[None]:
    """Let autocast on a CPU normalise in float32, as a GPU's: fake tensors on CUDA need a torch built for it."""
    if not applied:
        yield
        return
    group_norm, layer_norm = F.group_norm, F.layer_norm
    F.group_norm = lambda x, *rest, **named: group_norm(x.float(), *rest, **named)
    F.layer_norm = lambda x, *rest, **named: layer_norm(x.float(), *rest, **named)
    try:
        yield
    finally:
        F.group_norm, F.layer_norm = group_norm, layer_norm
