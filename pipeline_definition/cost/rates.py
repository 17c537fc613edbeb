"""How fast each GPU does the work, with the source of each rate: reads rates.yaml; writes nothing.

A rate is measured by this project, else published by others, else derived from the model's FLOPs and a utilisation.
"""

import functools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import yaml
from pydantic import Field

from params.arguments import validated
from params.memory import ModelFigures, family_of_denoiser, flops_at
from params.model import Model
from params.parameter_names import DOWNLOAD_HOSTS, instance_type_of
from pipeline_definition.cost.training import CostError
from pipeline_definition.jobs.instances import Gpu, Instance

Kind = Literal["measured", "published", "derived"]
KINDS: tuple[Kind, ...] = ("measured", "published", "derived")
RATES_FILE = Path(__file__).with_name("rates.yaml")
# Virtual CPUs of the c, m and r families: 2 for large, 4 for each `x` of xlarge (EC2's instance tables).
VCPUS_OF_XLARGE = 4
GPUS_OF_ONE_HOST = 8


@dataclass(frozen=True)
class Rate:
    """Samples a second of one GPU or one host, and where the figure comes from."""

    samples_per_s: float
    kind: Kind
    source: str


class TrainRate(Model):
    """Training of one model on one kind of GPU at one resolution."""

    model: str
    """As in memory.yaml."""
    gpu: str
    """As in instances.yaml."""
    resolution_px: int
    samples_per_s_per_gpu: float = Field(gt=0)
    """On one host, latents cached."""
    kind: Kind
    text: Literal["cached", "online"]
    """Whether the text encoder ran during training."""
    source: str


class DownloadRate(Model):
    samples_per_s_per_vcpu: float = Field(gt=0)
    kind: Kind
    source: str


class Peak(Model):
    """Dense TFLOP/s of one GPU."""

    half: float
    """bfloat16 or float16 in the tensor cores."""
    single: float | None = None
    """float32; None: not published."""


class UtilisationRate(Model):
    """What part of the peak is reached."""

    value: float = Field(gt=0, le=1)
    source: str


class ScalingRun(Model):
    """A published training on more GPUs than one host has."""

    gpus: int
    global_batch_size: int
    samples: float
    """Of the whole run."""
    hours: float = Field(gt=0)
    samples_per_s_alone: float = Field(gt=0)
    """Of one GPU on one host."""
    source: str

    @property
    def loss(self) -> float:
        """By what fraction the GPU-hours are more than on one host."""
        return self.gpus * self.hours * 3600 * self.samples_per_s_alone / self.samples - 1.0


class Assumed(Model):
    """What nobody has measured for this project; rates.yaml says what each is."""

    job_start_s: float
    jpeg_bytes_256_px: float
    source_picture_bytes: float
    upload_part_bytes: float
    checkpoint_bytes_per_parameter: float
    caption_flops: float
    spot_time_factor: float = Field(ge=1)
    """Wall time with spot instances over wall time without."""
    interface_endpoints: int


class Rates(Model):
    train: list[TrainRate]
    download: DownloadRate
    gpus: dict[str, Peak]
    """By the name in instances.yaml."""
    utilisation: dict[str, UtilisationRate]
    """Of caption, encode, generate, and train_PART by the part that is trained."""
    scaling: list[ScalingRun]
    assumed: Assumed

    def train_rate(self, model: ModelFigures, gpu: Gpu, resolution_px: int, text_online: bool) -> Rate:
        """Return training samples/s of one GPU; `text_online`: captions pass the text encoders while training."""
        asked = (model.name, resolution_px, gpu.name)
        entries = [one for one in self.train if (one.model, one.resolution_px, one.gpu) == asked]
        denoiser, text = flops_at(model.sample.denoiser_train, resolution_px), text_online * model.sample.text_encoders
        if not entries:
            part = family_of_denoiser(model.denoiser).denoiser
            return self._derived(gpu, "bfloat16", f"train_{part}", denoiser + text)
        entry = min(entries, key=lambda one: KINDS.index(one.kind))
        if entry.text == "online" or not text:
            return Rate(entry.samples_per_s_per_gpu, entry.kind, entry.source)
        share = denoiser / (denoiser + text)
        source = f"{entry.source}; times {share:.3f} for the text encoder's FLOPs, which were cached there"
        return Rate(entry.samples_per_s_per_gpu * share, entry.kind, source)

    def encode_rate(self, model: ModelFigures, gpu: Gpu, side_px: int, precision: str, embeddings: bool) -> Rate:
        """Return pictures/s of one GPU through the VAE, and through the text encoders where embeddings are stored."""
        flops = flops_at(model.sample.vae_encode, side_px) + embeddings * model.sample.text_encoders
        return self._derived(gpu, precision, "encode", flops)

    def caption_rate(self, gpu: Gpu, precision: str) -> Rate:
        return self._derived(gpu, precision, "caption", self.assumed.caption_flops)

    def generate_rate(self, model: ModelFigures, gpu: Gpu, side_px: int, passes: int, precision: str) -> Rate:
        """Return pictures/s of one GPU: the denoiser's passes, then the VAE's decoder."""
        flops = passes * flops_at(model.sample.denoiser_forward, side_px) + flops_at(model.sample.vae_decode, side_px)
        return self._derived(gpu, precision, "generate", flops)

    def download_rate(self, instance: Instance) -> Rate:
        """Return samples/s of one host."""
        rate = self.download
        return Rate(rate.samples_per_s_per_vcpu * vcpus_of(instance.name), rate.kind, rate.source)

    def efficiency(self, gpus: int, global_batch_size: int, samples_per_s: float) -> float:
        """Return what is left of a GPU's speed when this many share a global batch, in (0, 1]; 1 on one host.

        With the global batch fixed, the computation of a step shrinks with the number of GPUs and with their speed, and
        the exchange of the gradients does not: GPU-hours grow in a straight line with the GPUs beyond one host.
        """
        return 1.0 / (1.0 + self.exchange_s * _exposure(gpus, global_batch_size, samples_per_s))

    @functools.cached_property
    def exchange_s(self) -> float:
        """Seconds of a step that pass with the exchange of gradients: least squares of the published hours' errors."""
        runs = self.scaling
        points = [(_exposure(one.gpus, one.global_batch_size, one.samples_per_s_alone), one.loss) for one in runs]
        weighted = [(exposure / (1 + loss), loss / (1 + loss)) for exposure, loss in points]
        return sum(x * y for x, y in weighted) / sum(x * x for x, _ in weighted)

    def _derived(self, gpu: Gpu, precision: str, work: str, flops: float) -> Rate:
        if gpu.name not in self.gpus:
            raise CostError(f"no rate of {gpu.name} is known: write its peak under gpus in {RATES_FILE.name}")
        peak = self.gpus[gpu.name]
        peak_tflops = peak.single if precision == "float32" else peak.half
        if peak_tflops is None:
            raise CostError(
                f"no rate of {gpu.name} in float32 is known: set {work}'s precision to bfloat16, or write its peak"
                f" under gpus in {RATES_FILE.name}"
            )
        used = self.utilisation[work]
        source = f"{flops / 1e9:,.0f} GFLOP a sample at {used.value:.0%} of {peak_tflops:g} TFLOP/s ({used.source})"
        return Rate(1e12 * peak_tflops * used.value / flops, "derived", source)


def _exposure(gpus: int, global_batch_size: int, samples_per_s: float) -> float:
    """Return by what fraction a second of exchange in each step lengthens a training."""
    return max(0, gpus - GPUS_OF_ONE_HOST) * samples_per_s / global_batch_size


def gpu_of(instance: Instance, parameter: str) -> Gpu:
    """Return the GPU of an instance type, which `parameter` sets.

    Raises CostError where it has none: this model's speed on CPUs is not known.
    """
    if instance.gpu is None:
        raise CostError(f"{instance.name} has no GPU whose speed is known: set {parameter} to one that has")
    return instance.gpu


def vcpus_of(instance_type: str) -> int:
    """Return the virtual CPUs of a host, from its size."""
    size = instance_type.rsplit(".", 1)[-1]
    match = re.fullmatch(r"medium|large|(\d*)xlarge", size)
    if match is None:
        parameter = instance_type_of(DOWNLOAD_HOSTS)
        raise CostError(f"{instance_type}: its size is not known: set {parameter} to one such as ml.c6i.4xlarge")
    return {"medium": 1, "large": 2}.get(size) or VCPUS_OF_XLARGE * int(match[1] or 1)


@functools.cache
def load_rates(path: Path = RATES_FILE) -> Rates:
    """Read a rates file. Raises CostError that names the file and the key."""
    return validated(Rates, yaml.safe_load(path.read_text(encoding="utf-8")), str(path), CostError)
