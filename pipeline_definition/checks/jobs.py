"""Do the jobs fit their instances, and do the batches come out even?

Reads planned jobs and parameter values; writes nothing, needs no network.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from params.instances import has_gpus, has_local_disk
from params.stages import GPU_HOST_IMAGE, NONE
from pipeline_definition.checks.findings import Finding
from pipeline_definition.jobs import instances
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
    """Check that an endpoint's host has the driver that its image needs; `asked` is endpoint.inference_ami_version.

    AWS documents no drivers for the hosts of training and processing jobs: these tell in seconds, once they run.
    """
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
    """Check that the global batch divides among the ranks for every micro-batch that may be chosen.

    Global batch = micro-batch x ranks x accumulation, and accumulation is a whole number. `tuned` are the micro-batch
    sizes from which a tuner chooses for this job; `ranks_per_host` are its training processes on a host.
    """
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
    """Check that a sample budget is a whole number of optimizer steps and longer than its warm-up.

    `section` of the parameter set holds the warm-up.
    """
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
