"""Do the batches fit the GPUs' memory? Reckoned by fake tensors, so that no host is paid for running out of it.

Reads a parameter set, planned jobs and the figures of pipeline_definition/jobs/memory.py; writes nothing.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from params.memory import ModelFigures, family_of_denoiser
from params.parameter_names import PRETRAINED_MODEL
from params.settings import Settings
from pipeline_definition.checks.findings import Finding
from pipeline_definition.checks.jobs import micro_batches_of, words
from pipeline_definition.jobs import memory
from pipeline_definition.jobs.instances import Gpu
from pipeline_definition.jobs.planned import PlannedJob, Values, as_integer

GIGA = 1e9
# Settings that make room, the one that costs less time first.
ROOM = (("shard_optimizer",), ("gradient_checkpointing",), ("shard_optimizer", "gradient_checkpointing"))


def memory_findings(
    settings: Settings, jobs: list[PlannedJob], values: Values, denoiser_config: Mapping[str, Any] | None
) -> Iterator[Finding]:
    """Check trainings, trials and encoders against their GPUs.

    `denoiser_config` is the denoiser's in the pretrained folder. Without one the set's word is taken, and nothing
    blocks a start. What needs less than a GPU's whole memory is told of, and not refused.
    """
    model, declared = (memory.model_of(config, settings.data.model) for config in (denoiser_config, None))
    family = family_of_denoiser(denoiser_config or {})
    if denoiser_config and declared and family_of_denoiser(declared.denoiser) is not family:
        problem = f"{declared.name} is of another family than the pretrained folder, and so is the forecast"
        yield Finding("data.model", problem, f"name the {family.pipeline} of that folder", blocking=False)
    if model is None:
        problem = f"how much memory its denoiser takes is not in {memory.MEMORY_FILE.name}, and was not checked"
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
    needs = functools.partial(memory.training_bytes, model, phase, gpu, ranks)
    sizes = sorted({as_integer(size) for size in micro_batches_of(job, jobs, values)} - {0})
    unfit = [size for size in sizes if (needs(size) or 0.0) > memory.usable_bytes(gpu)]
    if not unfit:
        return
    is_tuned = job.choices or values.resolved(job.hyperparameters.get("micro_batch_size")) is None
    key = "tune.micro_batch_size" if is_tuned else f"{phase.settings_key}.micro_batch_size"
    batch = as_integer(values.resolved(job.hyperparameters.get("global_batch_size")))
    fits = memory.largest(memory.even_sizes(batch // ranks), gpu, needs)
    fixes = [f"{fits} is the largest that fits"] if fits else ["no micro-batch fits"]
    for names in ROOM:
        changed = functools.partial(needs, **dict.fromkeys(names, True))
        if not all(getattr(phase.train, name) for name in names) and memory.largest(unfit[-1:], gpu, changed):
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
    if peak is None or peak <= memory.usable_bytes(gpu):
        return
    key = "train.encode_batch_size" if online else "encode.batch_size"
    key = f"{phase.settings_key}.encode_batch_size" if phase.suffix else key
    fits = memory.largest(range(1, size), gpu, needs)
    fix = f"{fits} is the largest that fits" if fits else "not even one picture fits: take a GPU with more memory"
    yield _finding(key, f"batch of {size} pictures at {encode.resolution_px} px", peak, job, gpu, fix, True)


def _finding(key: str, batch: str, needed: float, job: PlannedJob, gpu: Gpu, fix: str, is_least: bool) -> Finding:
    """Return what does not fit; the least that a job may take blocks it where a whole GPU is too small for it."""
    room = f"the {gpu.name} of {job.instance.name} has {memory.usable_bytes(gpu) / GIGA:.1f} GB for tensors"
    problem = f"{job.step}'s {batch} takes about {needed / GIGA:.1f} GB, and {room}"
    return Finding(key, problem, fix, is_least and needed > memory.whole_bytes(gpu))
