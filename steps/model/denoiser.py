"""What the house asks of a network that turns noise into latents, whichever family it is of.

Each family is one module of steps/model/families with one subclass, which says how its network is built, called,
measured and drawn with. Order, draws, checkpoints, averages and guards know no family. Reads <folder>/<part>/; writes
nothing.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from params.families import CONFIG_FILE, INDEX_FILE, Family
from steps.errors import StepError
from steps.model.pretrained import LOCAL_SAFETENSORS, empty_model, library, load_part, loaded, part_config, sampler

Conditions = tuple[Tensor, ...]
"""What a network is told beside the noisy latents and the time, each [n, ...]."""
Shape = tuple[int, ...]
BlockHook = Callable[[int, Tensor], Tensor]
"""Takes the number of a block, from 1, and picture tokens [n, tokens, width]; returns those to go on with."""


def counted_flops(run: Callable[[], object]) -> int:
    """Return FLOPs of what `run` does, by torch's counter over every matrix product and convolution."""
    counter = FlopCounterMode(display=False)
    with counter:
        run()
    return int(counter.get_total_flops())


def batched(rows: Iterable[Conditions]) -> Conditions:
    """Return the conditions of single captions, which have no first dimension, as those of a batch."""
    return tuple(map(torch.stack, zip(*rows, strict=True)))


class TextReader(ABC):
    """The tokenizers of a model, and those of its text encoders that are there."""

    def __init__(
        self, tokenizers: Mapping[str, Any], encoders: Mapping[str, Any], lengths: Mapping[str, int], positions: int
    ) -> None:
        """Take parts by the name of their encoder; `lengths` are token ids."""
        self._tokenizers, self._encoders, self._lengths = tokenizers, encoders, lengths
        self.positions, self.encoders = positions, len(encoders)
        """Vectors for each caption that the network attends to, and how many text encoders there are."""
        self.room, self._tokenizer = 0, next(iter(tokenizers.values()))
        """Token ids that it reads at once beside start and end; 0: long prompts cannot be read in parts."""

    def tokens(self, captions: Sequence[str]) -> Tensor:
        """Return the captions' token ids, [n, length] int32: those of each tokenizer, padded and cut, in a row."""
        how = {"padding": "max_length", "truncation": True, "return_tensors": "pt"}
        read = [of(list(captions), max_length=self._lengths[part], **how) for part, of in self._tokenizers.items()]
        return torch.cat([one["input_ids"].to(torch.int32) for one in read], dim=1)

    def cuts(self, caption: str) -> bool:
        """Return whether a caption is longer than all encoders that are there read."""
        read = {part: self._tokenizers[part](caption, verbose=False)["input_ids"] for part in self._encoders}
        return all(len(ids) > self._lengths[part] for part, ids in read.items())

    def ids(self, text: str) -> list[int]:
        """Return all token ids of a text, without start and end, where there is one tokenizer."""
        return list(self._tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    def framed(self, ids: Sequence[int]) -> Tensor:
        """Return at most `room` ids between start and end, padded as `tokens` pads, [1, length] int32."""
        start, end, padding = (getattr(self._tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad"))
        return torch.tensor([[start, *ids, end, *[padding] * (self.room - len(ids))]], dtype=torch.int32)

    @abstractmethod
    def encode(self, tokens: Tensor, kept: Tensor | None = None) -> Conditions:
        """Return what the network is told of token ids; `kept` [n, encoders] bool says which of the encoders tell."""

    def to(self, device: torch.device) -> Self:
        """Move the encoders, and return the reader."""
        self._encoders = {part: encoder.to(device) for part, encoder in self._encoders.items()}
        return self


class Denoiser(ABC):
    """One family's networks; nothing of a single network is kept in it."""

    family: ClassVar[Family]
    predictions: ClassVar[tuple[str, ...]]
    """What it can be trained to predict, in the words of train.prediction_type."""
    flow_samplers: ClassVar[tuple[str, ...]]
    """The samplers that its pipeline draws with where the network predicts flow."""
    write_single_file: "ClassVar[staticmethod[[Path, Path, str], list[str]]]"
    """Writes a folder's model into a file, with a title, as other programs read it; returns what users must know."""

    @property
    def part(self) -> str:
        """Its folder, and its attribute in a pipeline."""
        return self.family.denoiser

    @property
    def config_name(self) -> str:
        return f"{self.part}/{CONFIG_FILE}"

    def config(self, folder: Path) -> dict[str, Any]:
        return part_config(folder, self.part)

    def new(self, folder: Path, seed: int) -> Any:
        """Return an untrained float32 network of a folder's configuration; the seed decides its weights."""
        config, make = self.config(folder), getattr(library("diffusers"), self.family.network).from_config
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return loaded(folder / self.part, lambda: make(config))

    def load(self, folder: Path, dtype: torch.dtype) -> Any:
        return load_part("diffusers", self.family.network, folder / self.part, dtype)

    def empty(self, config: Mapping[str, Any]) -> Any:
        """Return a network of a configuration whose weights have shapes and no memory (the meta device)."""
        return empty_model(self.family.network, config)

    def lacking(self, folder: Path) -> tuple[str, ...]:
        """Return the optional parts that a folder does not have."""
        optional = (part for part in self.family.classes if part in self.family.optional)
        return tuple(part for part in optional if not (folder / part).is_dir())

    def has_weights(self, folder: Path) -> bool:
        """Whether a folder can draw: training does not need the network's weights in it."""
        return (folder / INDEX_FILE).is_file() and any((folder / self.part).glob("*.safetensors"))

    @abstractmethod
    def set_up(self, network: Any, on_gpu: bool, dtype: torch.dtype) -> None:
        """Make a network fast for training in place; `dtype` is the forward pass's."""

    @abstractmethod
    def forward(self, network: Any, noisy: Tensor, timesteps: Tensor, conditions: Conditions) -> Tensor:
        """Return the prediction, [n, C, H, W]; any call unlike the pipeline's compiles anew. `timesteps` [n] or one."""

    def blocks(self, config: Mapping[str, Any]) -> tuple[int, int, int]:
        """Return the number of blocks over picture tokens, the tokens' width, and their side in latents; or zeros."""
        return 0, 0, 0

    def on_blocks(self, network: Any, before: BlockHook, after: BlockHook, gradient_checkpointing: bool) -> None:
        """Have hooks called before and after each block, in passes that compute gradients alone."""
        raise StepError(f"a {self.family.pipeline} has no blocks of picture tokens")

    @abstractmethod
    def positions(self, lengths: Mapping[str, int]) -> int:
        """Return how many vectors of each caption the network attends to; `lengths` are token ids by text encoder."""

    @abstractmethod
    def condition_shapes(self, config: Mapping[str, Any], positions: int) -> Sequence[Shape]:
        """Return the shapes of one caption's conditions, of which the network attends to `positions` vectors."""

    def flops_of_sample(
        self,
        config: Mapping[str, Any],
        latent_shape: Shape,
        positions: int,
        change: Callable[[Any], None] = lambda network: None,
    ) -> int:
        """Return FLOPs of one sample's forward and backward pass; one multiply-add is two.

        Exact, on a network without memory (the meta device): 539.3 GFLOP for Stable Diffusion 2 at 256 px, 2,409 GFLOP
        at 512 px. `change` is made to the network first: where no weight has a gradient there is no backward pass.
        """
        network = self.empty(config)
        change(network)
        with torch.device("meta"):
            conditions = tuple(torch.empty(1, *shape) for shape in self.condition_shapes(network.config, positions))
            latents, timesteps = torch.empty(1, *latent_shape), torch.zeros(1, dtype=torch.int64)

        def run() -> None:
            prediction: Any = self.forward(network, latents, timesteps, conditions)
            if prediction.requires_grad:
                prediction.sum().backward()

        return counted_flops(run)

    def misfits(self, config: Mapping[str, Any], latent_shapes: Sequence[Shape]) -> Iterator[str]:
        """Yield why a network of a configuration cannot be trained on latents, (C, H, W) each."""
        for channels, height, width in latent_shapes:
            if config["in_channels"] != channels:
                yield f"in_channels {config['in_channels']}, but the latents have {channels}"
            if problem := self.untrainable(config, (height, width)):
                yield f"{problem}; change encode.resolution_px or encode.bucket_step_px"

    def untrainable(self, config: Mapping[str, Any], size: tuple[int, int]) -> str:
        """Return why a network cannot be trained on latents of a height and width; empty where it can."""
        return self.undrawable(config, size)

    def undrawable(self, config: Mapping[str, Any], size: tuple[int, int]) -> str:
        """Return why a network cannot draw latents of a height and width; empty where it can."""
        return ""

    @abstractmethod
    def contradictions(self, folder: Path, pretrained: Path) -> Iterator[str]:
        """Yield what a folder's configuration asks for that the parts of the pretrained folder do not give."""

    @abstractmethod
    def reader(self, folder: Path, length: int, dtype: torch.dtype | None) -> TextReader:
        """Return a folder's text reader, `length` token ids each; without dtype one that cannot encode."""

    @abstractmethod
    def reader_of(self, pipeline: Any) -> TextReader:
        """Return the text reader of a loaded pipeline."""

    def load_pipeline(self, folder: Path, dtype: torch.dtype, left_out: Sequence[str] = ()) -> Any:
        """Return the pipeline of a folder, without a safety checker and without some of the optional parts."""
        for part in left_out:
            if part not in self.family.optional:
                raise StepError(f"without_encoders: a {self.family.pipeline} cannot draw without {part}")
        library("transformers")
        load = getattr(library("diffusers"), self.family.pipeline).from_pretrained
        without = {part: None if value == [None, None] else value for part, value in self.family.unused.items()}
        without |= dict.fromkeys((*self.lacking(folder), *left_out))
        return loaded(folder, lambda: load(folder, dtype=dtype, **without, **LOCAL_SAFETENSORS))

    def load_single_file(self, file: Path, folder: Path) -> Any:
        """Return the float32 pipeline of a single file, whose configurations are those of a folder."""
        library("transformers")
        load = getattr(library("diffusers"), self.family.pipeline).from_single_file
        options = {"config": str(folder), "local_files_only": True, "torch_dtype": torch.float32}
        lacking = self.lacking(folder)
        pipeline = loaded(file, lambda: load(str(file), **options, **dict.fromkeys(lacking)))
        for part in {*self.family.text.values()} - {*lacking}:
            # diffusers leaves T5 as in training, where it forgets at random.
            getattr(pipeline, part).eval()
        return pipeline

    @abstractmethod
    def prompts(self, wanted: Conditions, unwanted: Conditions | None) -> dict[str, Any]:
        """Return the pipeline's arguments for the conditions of prompts, and those of what must not be drawn."""

    @abstractmethod
    def exported_scheduler(self, config: Mapping[str, Any]) -> Any:
        """Return the pipeline's default sampler on a noise schedule; every other one is made from its configuration."""

    def sampler(self, name: str, config: Mapping[str, Any]) -> Any:
        """Return the sampler `ddim`, `dpm++` or `euler` on the noise schedule of another scheduler's configuration."""
        return sampler(name, config, self.flow_samplers)
