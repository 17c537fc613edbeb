"""Does a run fit at its size: steps into their limits, shards and indexes into memory, files into a folder or a volume?

Reads a parameter set, a definition, the parameters of one start and the price file; writes nothing. Checked is what a
setting can mend: no setting decides what memory screening takes, or how many DNS packets and reads of source shards
there are.

    sd-pipeline start --params params/sd2_base.yaml --dry-run
"""

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from params.divisors import largest_divisor
from params.instances import has_local_disk
from params.settings import Settings
from params.spilling import spilled_bytes
from pipeline_definition.checks.budget import job_key
from pipeline_definition.checks.findings import Finding
from pipeline_definition.cost.forecast import forecast
from pipeline_definition.cost.jobs import SECONDS_PER_HOUR, TIME_MARGIN
from pipeline_definition.cost.rates import vcpus_of
from pipeline_definition.cost.training import CostError
from pipeline_definition.cost.workload import PhaseWork
from pipeline_definition.jobs.planned import PlannedJob, all_steps, as_integer

# The time limit that is suggested, over the forecast.
SUGGESTED_MARGIN: Final = 1.5
# The most that a processing job may take; longer trainings need a quota (pipeline_definition/checks/capacity.py).
LONGEST_JOB_S: Final = 777_600
# Lustre looks a name up in a folder of more files ever more slowly; S3 has no folders.
FILES_PER_FOLDER: Final = 100_000
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/optimizing-performance.html: GETs of one prefix.
GETS_PER_S: Final = 5_500
BLOCK_BYTES: Final = 100
"""Of a rank for each block of latents: where it lies and its place in the order (`python -m benchmarks.scale`)."""
SHARDS_IN_MEMORY: Final = 12
"""Of an Encode host, assumed: four are written at once, each as blocks, as a tar, and on its way to S3."""
# https://aws.amazon.com/ec2/instance-types/, the least of each family; others are taken to have as much as c.
GIB_PER_VCPU: Final = {"c": 2.0, "m": 4.0, "r": 8.0, "g": 4.0, "gr": 8.0, "p": 7.6}
GIB: Final = 2**30


def memory_bytes_of(instance_type: str) -> float:
    """Return the least memory that a host of a type has. Raises CostError for a size that is not known."""
    family = re.match(r"ml\.([a-z]+)", instance_type)
    return GIB_PER_VCPU.get(family[1] if family else "c", GIB_PER_VCPU["c"]) * vcpus_of(instance_type) * GIB


def scale_findings(
    settings: Settings, definition: Mapping[str, Any], changes: Mapping[str, str], jobs: list[PlannedJob]
) -> Iterator[Finding]:
    """Check each job by the forecast's hours and rows; a set that has no forecast, or runs on this machine, passes."""
    if settings.local is not None:
        return
    try:
        bill = forecast(settings, definition, changes)
    except CostError:
        return
    hours = {line.step: line.hours for line in bill.lines}
    yield from _time_findings(definition, jobs, hours)
    for job in jobs:
        work = bill.workload.phase_of(job.step)
        if job.program == "download":
            yield from _spill_findings(settings, definition, job, bill.workload.rows)
        if job.program == "encode":
            yield from _shard_findings(settings, job, work)
        elif job.program == "train" and not job.choices:
            yield from _block_findings(settings, job, work, hours[job.step])


def _time_findings(
    definition: Mapping[str, Any], jobs: list[PlannedJob], hours: Mapping[str, float]
) -> Iterator[Finding]:
    """Check that each job ends before its limit; a training goes on later, and is only reported."""
    tunings = (step for step in all_steps(definition["Steps"]) if step["Type"] == "Tuning")
    limits = {one["Name"]: one["Arguments"]["HyperParameterTuningJobConfig"]["ResourceLimits"] for one in tunings}
    for job in jobs:
        # The jobs of a step that follow each other: a tuner's trials, some of them at once.
        trials = as_integer(limits.get(job.step, {}).get("MaxNumberOfTrainingJobs"))
        turns = max(1, math.ceil(trials / max(1, job.parallel)))
        needed_h, limit_h = hours.get(job.step, 0.0) / turns, job.max_runtime_s / SECONDS_PER_HOUR
        if job.program != "stream" and 0 < limit_h < needed_h * TIME_MARGIN:
            problem = f"{job.step} is forecast to take {needed_h:,.1f} h, and is stopped after {limit_h:,.1f} h"
            suggested_s = math.ceil(needed_h * SUGGESTED_MARGIN) * 3600
            hosts = math.ceil(job.count * needed_h * TIME_MARGIN / limit_h)
            longer = f"set it to {suggested_s}, or set " if suggested_s <= LONGEST_JOB_S else "set "
            fix = f"{longer}{job.count_parameter} to {hosts}: {TIME_MARGIN:g} times the forecast is the least"
            yield Finding(f"{job_key(job.step)}.max_runtime_s", problem, fix, blocking=job.kind != "training")


def _spill_findings(settings: Settings, definition: Mapping[str, Any], job: PlannedJob, rows: int) -> Iterator[Finding]:
    """Check that the temporary files of the passes over a whole table fit on a volume."""
    [step] = (one for one in all_steps(definition["Steps"]) if one["Name"] == job.step)
    room_gb = as_integer(step["Arguments"]["ProcessingResources"]["ClusterConfig"].get("VolumeSizeInGB"))
    needed_gb = math.ceil(spilled_bytes(rows, settings.download.dedup) / GIB)
    if room_gb < needed_gb and not has_local_disk(job.instance.name):
        problem = f"{rows:,} rows take {needed_gb:,} GB of disk while they are compared, and a volume has {room_gb:,}"
        yield Finding(f"{job_key(job.step)}.volume_size_gb", problem, f"set it to {needed_gb} or more")


def _shard_findings(settings: Settings, job: PlannedJob, work: PhaseWork) -> Iterator[Finding]:
    """Check the shards of latents: small enough for a host's memory, large enough for a folder of Lustre."""
    phase, rows = settings.phase_of(job.step), work.encoded_rows
    key = f"{phase.settings_key if phase.suffix else 'encode'}.rows_per_shard"
    size, block = phase.encode.rows_per_shard, phase.encode.rows_per_block
    files = math.ceil(rows / size)
    if settings.file_system.kind == "fsx" and files > FILES_PER_FOLDER:
        fitting = math.ceil(rows / FILES_PER_FOLDER / block) * block
        problem = f"{rows:,} rows make {files:,} files in one folder, and Lustre wants at most {FILES_PER_FOLDER:,}"
        yield Finding(key, problem, f"set it to {fitting} or more", blocking=False)
    shard_bytes = work.latents_bytes / max(rows, 1) * size
    needed, room = SHARDS_IN_MEMORY * shard_bytes, memory_bytes_of(job.instance.name)
    if needed > room:
        problem = f"shards of {size:,} rows take {needed / GIB:,.0f} GiB of a host while they are written"
        fix = f"set it to {int(size * room / needed) // block * block} or less, or take a larger host"
        yield Finding(key, f"{problem}, and {job.instance.name} has {room / GIB:,.0f}", fix)


def _block_findings(settings: Settings, job: PlannedJob, work: PhaseWork, hours: float) -> Iterator[Finding]:
    """Check the blocks of latents: few enough for the memory of the ranks, and for the reads that S3 answers.

    Each rank has lanes of its own, or reads blocks of which it uses a part.
    """
    phase, ranks = settings.phase_of(job.step), job.count * job.instance.ranks
    lanes = largest_divisor(work.global_batch_size, phase.train.max_lanes)
    if ranks > lanes:
        problem = f"{ranks} ranks share {lanes} lanes, and each reads {ranks / lanes:.1f} times what it uses"
        fix = f"set it to {ranks} before a training begins: it is part of the samples' order"
        yield Finding("train.max_lanes", problem, fix, blocking=False)
    key = f"{phase.settings_key}.encode_settings.rows_per_block" if phase.suffix else "encode.rows_per_block"
    size = phase.encode.rows_per_block
    needed = BLOCK_BYTES * work.encoded_rows / size * job.instance.ranks
    if needed > (room := memory_bytes_of(job.instance.name)):
        problem = (
            f"{job.instance.ranks} ranks take {needed / GIB:,.0f} GiB of a host to know where blocks of {size} lie"
        )
        fix = f"set it to {math.ceil(size * needed / room)} or more"
        yield Finding(key, f"{problem}, and {job.instance.name} has {room / GIB:,.0f}", fix)
    gets = work.training_samples / (hours * SECONDS_PER_HOUR) / size
    if settings.file_system.kind != "fsx" and gets > GETS_PER_S:
        problem = f"{job.step} would read {gets:,.0f} blocks a second, and S3 answers {GETS_PER_S:,} GETs of a prefix"
        yield Finding(key, problem, f"set it to {math.ceil(size * gets / GETS_PER_S)} or more", blocking=False)
