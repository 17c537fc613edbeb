"""Do the jobs fit their instances and the GPUs' memory, and do the batches come out even?

Reads a parameter set, planned jobs, parameter values, and the figures of pipeline_definition/jobs/memory.yaml, reckoned
by fake tensors, so that no host is paid for running out of memory; writes nothing, needs no network.
"""

import functools
import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from params.instances import has_gpus, has_local_disk
from params.memory import ModelFigures, family_of_denoiser
from params.parameter_names import PRETRAINED_MODEL
from params.settings import Settings
from params.stages import GPU_HOST_IMAGE, NONE
from pipeline_definition.checks.findings import Finding
from pipeline_definition.jobs import instances
from pipeline_definition.jobs.instances import Gpu
from pipeline_definition.jobs.planned import PlannedJob, Values, as_integer, parameter_of

GPU_PROGRAMS = ("recaption", "encode", "train", "throughput", "stream", "evaluate", "serve")
MAX_SUGGESTED_HOSTS = 64
CUDA_DRIVER = 580
# https://docs.aws.amazon.com/sagemaker/latest/dg/inference-gpu-drivers.html
OLD_HOST_IMAGES = {
    "al2-ami-sagemaker-inference-gpu-2": 535,
    "al2-ami-sagemaker-inference-gpu-2-1": 535,
    "al2-ami-sagemaker-inference-gpu-3-1": 550,
}
# A type of each kind with GPUs that every region with GPUs has.
GPU_EXAMPLES = {
    "training": "ml.p4d.24xlarge or ml.g5.12xlarge",
    "processing": "ml.g5.12xlarge",
    "endpoint": "ml.g5.2xlarge",
}
GIGA = 1e9
# Settings that make room, the one that costs less time first.
ROOM = (("shard_optimizer",), ("gradient_checkpointing",), ("shard_optimizer", "gradient_checkpointing"))


def instance_findings(job: PlannedJob) -> Iterator[Finding]:
    """Check that an instance type exists for the kind of job and can run its program."""
    name, gpu, fix = job.instance.name, job.instance.gpu, f"set it to {GPU_EXAMPLES[job.kind]}"
    needs_gpu, asks_bfloat16 = job.program in GPU_PROGRAMS, job.hyperparameters.get("precision") == "bfloat16"
    if name not in instances.known_types(job.kind):
        problem = f"SageMaker has no {name!r} for a {job.kind} job"
        nearest = instances.nearest_of(name, instances.known_types(job.kind))
        fix = f"set it to {nearest}, or see the types that botocore lists for {job.kind}"
    elif job.instance.unusable:
        problem = f"{name} cannot run the images: {job.instance.unusable}"
    elif needs_gpu and gpu is None:
        problem = f"{name} has no NVIDIA GPU and {job.step} needs one"
    elif needs_gpu and gpu and gpu.compute_capability < instances.CUDA_COMPUTE_CAPABILITY:
        problem = f"the {gpu.name} of {name} is too old for the CUDA 13 of the images"
    elif asks_bfloat16 and gpu and gpu.compute_capability < instances.BFLOAT16_COMPUTE_CAPABILITY:
        problem = f"the {gpu.name} of {name} has no bfloat16, and train.precision asks for it"
        fix += ", or train.precision to float32"
    else:
        return
    yield Finding(job.type_parameter, problem, fix)


def host_image_findings(job: PlannedJob, asked: str) -> Iterator[Finding]:
    """Check the driver of an endpoint's host; `asked` is endpoint.inference_ami_version. Jobs tell at their start."""
    name, image, key = job.instance.name, job.host_image, "endpoint.inference_ami_version"
    if image and image not in instances.known_host_images():
        problem = f"SageMaker has no host image {image!r}"
        fix = f"set it to auto, or one of {', '.join(instances.known_host_images())}"
    elif has_gpus(name) and image in OLD_HOST_IMAGES:
        problem = f"{image} has driver {OLD_HOST_IMAGES[image]}, and CUDA 13 needs {CUDA_DRIVER} or newer"
        fix = f"set it to auto or {GPU_HOST_IMAGE}, or build the inference image for an older CUDA"
    else:
        key, fix = job.type_parameter, f"set endpoint.job.instance_type to {name} and upsert again"
        if image and not has_gpus(name):
            problem = f"{name} has no GPU, and the definition asks for the host image {image}"
        elif not image and has_gpus(name) and asked != NONE:
            problem = f"the driver that {name} has by default is too old for CUDA 13"
            problem += ", and the definition names no host image"
        else:
            return
    yield Finding(key, problem, fix)


def disk_key_findings(job: PlannedJob, key: str) -> Iterator[Finding]:
    """Check that the disks have the account's key where they can: a host's own disks take none, EBS volumes do."""
    name = job.instance.name
    if job.has_volume_key and has_local_disk(name):
        problem = f"{name} encrypts its own disks, and the definition names {key or 'a key'} for them: that is refused"
    elif key and not job.has_volume_key and not has_local_disk(name):
        problem = f"the disks of {name} would not be encrypted under account.kms_key_arn"
    else:
        return
    fix = "use types of one kind, and put this one into the parameter set and upsert again"
    yield Finding(job.type_parameter, f"{job.step}: {problem}", fix)


def batch_findings(job: PlannedJob, tuned: tuple[str, ...], values: Values, ranks_per_host: int) -> Iterator[Finding]:
    """Check that the global batch is micro-batch x ranks x a whole number, for each size that a tuner may take."""
    asked = job.hyperparameters.get("global_batch_size")
    batch, ranks = as_integer(values.resolved(asked)), ranks_per_host * job.count
    sizes = sorted({as_integer(size) for size in tuned} - {0})
    if job.count < 1 or not sizes:
        return
    name = parameter_of(asked) or "train.global_batch_size"
    if batch < 1:
        yield Finding(name, f"a global batch of {values.resolved(asked)} samples is empty", "set it to 1 or more")
        return
    uneven = [size for size in sizes if batch % (size * ranks)]
    if uneven:
        micro = f"{job.step}'s micro-batch of {words(uneven)} x {ranks_per_host} ranks x {job.count} hosts"
        unit = math.lcm(*sizes)
        hosts = [n for n in range(1, MAX_SUGGESTED_HOSTS + 1) if batch % (unit * ranks_per_host * n) == 0]
        fixes = [f"set it to {words(hosts)}"] if hosts else []
        whole = unit * ranks
        fixes.append(f"set {name} to a multiple of {whole} such as {math.ceil(batch / whole) * whole}")
        if len(uneven) < len(sizes):
            fixes.append(f"leave {words(uneven)} out of tune.micro_batch_size")
        yield Finding(job.count_parameter, f"{name} {batch:,} does not divide by {micro}", ", or ".join(fixes))


def sample_budget_findings(job: PlannedJob, values: Values, section: str = "train") -> Iterator[Finding]:
    """Check that a budget is a whole number of steps, and longer than the warm-up in its `section` of the set."""
    asked = job.hyperparameters.get("training_samples")
    batch = as_integer(values.resolved(job.hyperparameters.get("global_batch_size")))
    samples = as_integer(values.resolved(asked))
    name = parameter_of(asked) or f"{job.step}.training_samples"
    if batch < 1:
        return
    if samples < batch:
        yield Finding(name, f"{samples:,} samples are less than one step of {batch:,}", f"set it to {batch:,} or more")
    elif samples % batch:
        down, problem = samples // batch * batch, f"{samples:,} samples are {samples / batch:,.2f} steps of {batch:,}"
        yield Finding(name, problem, f"set it to {down} or {down + batch}")
    warmup = as_integer(values.resolved(job.hyperparameters.get("warmup_samples")))
    if samples >= batch and warmup >= samples:
        key = "tune.warmup_samples" if job.choices else f"{section}.warmup_samples"
        yield Finding(name, f"{samples:,} samples end within the warm-up of {warmup:,}", f"raise it, or lower {key}")


def micro_batches_of(job: PlannedJob, jobs: list[PlannedJob], values: Values) -> tuple[str, ...]:
    """Return the micro-batch sizes that a job may run with: its own choices, its fixed one, or what a tuner chooses."""
    if own := job.choices.get("micro_batch_size"):
        return own
    fixed = values.resolved(job.hyperparameters.get("micro_batch_size"))
    tuned = tuple(size for other in jobs for size in other.choices.get("micro_batch_size", ()))
    return (str(fixed),) if fixed is not None else tuned


def words(numbers: list[int]) -> str:
    """Return numbers as words are listed: 16, 32 or 64."""
    return ", ".join(map(str, numbers[:-1])) + (" or " if numbers[1:] else "") + str(numbers[-1])


def memory_findings(
    settings: Settings, jobs: list[PlannedJob], values: Values, denoiser_config: Mapping[str, Any] | None
) -> Iterator[Finding]:
    """Check jobs against GPUs; nothing blocks without the pretrained denoiser's config, or if a whole GPU would do."""
    model, declared = (instances.model_of(config, settings.data.model) for config in (denoiser_config, None))
    family = family_of_denoiser(denoiser_config or {})
    if denoiser_config and declared and family_of_denoiser(declared.denoiser) is not family:
        problem = f"{declared.name} is of another family than the pretrained folder, and so is the forecast"
        yield Finding("data.model", problem, f"name the {family.pipeline} of that folder", blocking=False)
    if model is None:
        problem = f"how much memory its denoiser takes is not in {instances.MEMORY_FILE.name}, and was not checked"
        fix = "`python -m steps memory --pretrained-dir FOLDER` reckons it in minutes, without a GPU"
        yield Finding(PRETRAINED_MODEL, problem, fix, blocking=False)
        return
    for job in (one for planned in jobs for one in planned.alternatives()):
        if job.instance.gpu is not None and job.count > 0:
            findings = _training(settings, job, jobs, values, model) if job.program == "train" else ()
            for finding in _encoding(settings, job, model) if job.program in ("encode", "stream") else findings:
                known = denoiser_config is not None and not settings.train.compile
                yield replace(finding, blocking=finding.blocking and known)


def _training(
    settings: Settings, job: PlannedJob, jobs: list[PlannedJob], values: Values, model: ModelFigures
) -> Iterator[Finding]:
    phase, gpu, ranks = settings.phase_of(job.step), job.instance.gpu, job.instance.ranks * job.count
    assert gpu is not None
    needs = functools.partial(instances.training_bytes, model, phase, gpu, ranks)
    sizes = sorted({as_integer(size) for size in micro_batches_of(job, jobs, values)} - {0})
    unfit = [size for size in sizes if (needs(size) or 0.0) > instances.usable_bytes(gpu)]
    if not unfit:
        return
    is_tuned = job.choices or values.resolved(job.hyperparameters.get("micro_batch_size")) is None
    key = "tune.micro_batch_size" if is_tuned else f"{phase.settings_key}.micro_batch_size"
    batch = as_integer(values.resolved(job.hyperparameters.get("global_batch_size")))
    fits = instances.largest(instances.even_sizes(batch // ranks), gpu, needs)
    fixes = [f"{fits} is the largest that fits"] if fits else ["no micro-batch fits"]
    for names in ROOM:
        changed = functools.partial(needs, **dict.fromkeys(names, True))
        if not all(getattr(phase.train, name) for name in names) and instances.largest(unfit[-1:], gpu, changed):
            section = phase.settings_key if names == ("gradient_checkpointing",) else "train"
            fixes.append(f"with {section}.{' and '.join(names)} {unfit[-1]} does, too")
            break
    batch_text, least = f"micro-batch of {words(unfit)} at {phase.encode.resolution_px} px", needs(unfit[0]) or 0.0
    yield _finding(key, batch_text, least, job, gpu, ", and ".join(fixes), unfit == sizes)


def _encoding(settings: Settings, job: PlannedJob, model: ModelFigures) -> Iterator[Finding]:
    phase, gpu = settings.phase_of(job.step), job.instance.gpu
    assert gpu is not None
    encode, online = phase.encode, job.program == "stream"
    size = phase.train.encode_batch_size if online else encode.batch_size
    needs = functools.partial(model.encoding_bytes, encode.precision, encode.resolution_px, encode.caption_embeddings)
    peak = needs(size)
    if peak is None or peak <= instances.usable_bytes(gpu):
        return
    key = "train.encode_batch_size" if online else "encode.batch_size"
    key = f"{phase.settings_key}.encode_batch_size" if phase.suffix else key
    fits = instances.largest(range(1, size), gpu, needs)
    fix = f"{fits} is the largest that fits" if fits else "not even one picture fits: take a GPU with more memory"
    yield _finding(key, f"batch of {size} pictures at {encode.resolution_px} px", peak, job, gpu, fix, True)


def _finding(key: str, batch: str, needed: float, job: PlannedJob, gpu: Gpu, fix: str, is_least: bool) -> Finding:
    """Return what does not fit; the least that a job may take blocks it where a whole GPU is too small for it."""
    room = f"the {gpu.name} of {job.instance.name} has {instances.usable_bytes(gpu) / GIGA:.1f} GB for tensors"
    problem = f"{job.step}'s {batch} takes about {needed / GIGA:.1f} GB, and {room}"
    return Finding(key, problem, fix, is_least and needed > gpu.memory_mib * instances.MIB)
