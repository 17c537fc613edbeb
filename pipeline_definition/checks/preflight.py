"""Everything that would fail on the cluster and can be checked now.

Reads settings, a definition, the parameters of one start, botocore's service model and, with a target, the account;
writes nothing. Without a target it needs no network, no credentials and no SageMaker SDK.

    sd-pipeline start --params params/sd2_base.yaml --set TrainingInstanceCount=8 --dry-run
"""

import itertools
from collections.abc import Iterator, Mapping
from typing import Any, Final

from botocore.model import ListShape, MapShape, Shape, StructureShape

from params.arguments import hint_at
from params.settings import Settings
from params.stages import Range
from pipeline_definition.checks import addresses
from pipeline_definition.checks import jobs as job_checks
from pipeline_definition.checks.account import AccountChecks, denoiser_config_of
from pipeline_definition.checks.budget import budget_findings
from pipeline_definition.checks.findings import Finding
from pipeline_definition.checks.scale import scale_findings
from pipeline_definition.jobs.planned import PlannedJob, Values, all_steps, parameter_of, planned_jobs
from pipeline_definition.jobs.request_shapes import REQUESTS, request_shape
from pipeline_definition.session import Target

__all__ = ["Finding", "parameter_findings", "preflight"]

CONVERTERS: Final[Mapping[str, type]] = {"Integer": int, "Float": float}


def preflight(
    settings: Settings, definition: Mapping[str, Any], parameters: Mapping[str, str], target: Target | None = None
) -> list[Finding]:
    """Return what blocks a start and what is worth knowing; a target is asked unless something is wrong already."""
    is_local = settings.local is not None or (target is not None and target.is_local)
    bad = list(parameter_findings(definition, parameters))
    # A value that cannot be read is left out of the arithmetic.
    good = {name: text for name, text in parameters.items() if name not in {finding.parameter for finding in bad}}
    values = Values(definition, good)
    jobs = planned_jobs(definition, values)
    findings = [
        *bad,
        *_job_findings(settings, jobs, values, is_local),
        *addresses.address_findings(settings, values, is_local),
        *addresses.file_system_findings(definition, values, jobs, is_local),
        *addresses.threshold_findings(values),
        *addresses.sample_findings(settings, values),
        *set_findings(settings),
        *limit_findings(definition, values),
    ]
    if not any(finding.blocking for finding in findings):
        findings += budget_findings(settings, definition, good)
        findings += [] if is_local else scale_findings(settings, definition, good, jobs)
    denoiser_config = None
    if target is not None and not any(finding.blocking for finding in findings):
        # Without an account it is only a guess whether the role reads other buckets.
        guessed = addresses.foreign_addresses(settings, values)
        findings = [finding for finding in findings if finding.blocking or finding.parameter not in guessed]
        findings += AccountChecks(settings, values, jobs, target).findings()
        denoiser_config = denoiser_config_of(values, target)
    findings += [] if is_local else job_checks.memory_findings(settings, jobs, values, denoiser_config)
    return list(dict.fromkeys(findings))


def parameter_findings(definition: Mapping[str, Any], parameters: Mapping[str, str]) -> Iterator[Finding]:
    """Check what `--set` names against a definition's parameters."""
    known = {parameter["Name"]: parameter for parameter in definition["Parameters"]}
    for name, text in parameters.items():
        unknown = f"unknown parameter {name}; {hint_at(name, known)}"
        if problem := _value_problem(known[name], text) if name in known else unknown:
            yield Finding(name, problem, "`sd-pipeline parameters` lists them")


def _value_problem(parameter: Mapping[str, Any], text: str) -> str:
    """Return what is wrong with a parameter's value; nothing where it is of the parameter's type and choices."""
    try:
        CONVERTERS.get(parameter["Type"], str)(text)
    except ValueError:
        article = "an" if parameter["Type"] == "Integer" else "a"
        return f"{text!r} is not {article} {parameter['Type'].lower()}"
    choices = parameter.get("EnumValues")
    return f"{text!r} is not one of {', '.join(choices)}" if choices and text not in choices else ""


def _job_findings(settings: Settings, jobs: list[PlannedJob], values: Values, is_local: bool) -> Iterator[Finding]:
    for job in (one for planned in jobs for one in planned.alternatives()):
        unfit = [] if is_local else list(job_checks.instance_findings(job))
        yield from unfit
        # A value that is not an integer is reported elsewhere.
        if job.count_parameter in values and job.count < 1:
            yield Finding(job.count_parameter, f"{job.step} cannot run on {job.count} hosts", "set it to 1 or more")
        if not is_local:
            yield from job_checks.disk_key_findings(job, settings.account.kms_key_arn)
        if job.kind == "endpoint" and not unfit and not is_local:
            yield from job_checks.host_image_findings(job, settings.endpoint.inference_ami_version)
        if job.program == "train" and not unfit:
            # On this machine a host is one process, whatever its instance type says.
            ranks_per_host = 1 if is_local else job.instance.ranks
            sizes = job_checks.micro_batches_of(job, jobs, values)
            yield from job_checks.batch_findings(job, sizes, values, ranks_per_host)
            yield from job_checks.sample_budget_findings(job, values, settings.phase_of(job.step).settings_key)


def set_findings(settings: Settings) -> Iterator[Finding]:
    """Check the search's intervals, and that phases find the pictures that they need and differ in their size."""
    for name in ("learning_rate", "caption_dropout"):
        interval: Range = getattr(settings.tune, name)
        if interval.low >= interval.high:
            problem = f"the interval from {interval.low} to {interval.high} is empty"
            yield Finding(f"tune.{name}", problem, "set low below high")
        elif interval.scaling == "Logarithmic" and interval.low <= 0:
            yield Finding(f"tune.{name}", f"{interval.low} has no logarithm", "set low above 0, or scaling to Linear")
    stored = settings.download.image_size_px
    for phase in settings.phases:
        side = phase.encode.resolution_px
        if side > stored:
            problem = f"pictures stored at {stored} px would be scaled up to the {side} px of {phase.encode_name}"
            key = phase.settings_key if phase.suffix else "encode"
            fix = f"set it to {side} or more, or {key}.resolution_px to {stored} or less"
            yield Finding("download.image_size_px", problem, fix)
    # Buckets are for pictures of many shapes that are stored so, and encoded beforehand.
    encodes, mode = [phase.encode for phase in settings.phases], settings.download.resize_mode
    has_buckets = any(encode.max_bucket_ratio != 1 for encode in encodes)
    if has_buckets and mode != "keep_ratio":
        problem = f"resize_mode {mode} stores squares, and encode.max_bucket_ratio is above 1"
        yield Finding("download.resize_mode", problem, "set it to keep_ratio, or encode.max_bucket_ratio to 1")
    if has_buckets and (settings.encoders is not None or any(encode.max_train_rows for encode in encodes)):
        problem = "buckets are for latents that are all encoded before training"
        fix = "set it to 1, or leave out encoders and encode.max_train_rows"
        yield Finding("encode.max_bucket_ratio", problem, fix)
    for former, phase in itertools.combinations(settings.phases, 2):
        if former.encode.resolution_px == (side := phase.encode.resolution_px):
            problem = f"{former.encode_name} at {side} px would overwrite the latents of {phase.encode_name}"
            fix = "set it to another size, or leave the phase out"
            yield Finding(f"{phase.settings_key}.resolution_px", problem, fix)


def limit_findings(definition: Mapping[str, Any], values: Values) -> Iterator[Finding]:
    """Check every value of every step's request that is known before the run against the most that the API takes."""
    for step in all_steps(definition["Steps"]):
        operation = REQUESTS.get(step["Type"])
        if operation:
            for place, value, most in _excesses(step["Arguments"], request_shape(operation), values, ""):
                yield _finding(f"{step['Name']}.{place}", value, most, operation, values)


def _excesses(value: Any, shape: Shape, values: Values, place: str) -> Iterator[tuple[str, Any, int]]:
    """Yield (place, value as the definition has it, most) for what is above its shape's limit."""
    if isinstance(shape, StructureShape) and isinstance(value, Mapping):
        for name, member in shape.members.items():
            if name in value:
                yield from _excesses(value[name], member, values, f"{place}.{name}".lstrip("."))
        return
    most = shape.metadata.get("max")
    if isinstance(shape, ListShape) and isinstance(value, list):
        if most is not None and len(value) > most:
            yield place, value, int(most)
        for number, item in enumerate(value):
            yield from _excesses(item, shape.member, values, f"{place}[{number}]")
    elif isinstance(shape, MapShape) and isinstance(value, Mapping) and "Get" not in value:
        for key, item in value.items():
            yield from _excesses(item, shape.value, values, f"{place}.{key}")
    elif most is not None and (size := _size(values.resolved(value), shape)) is not None and size > most:
        yield place, value, int(most)


def _size(value: Any, shape: Shape) -> float | None:
    """Return what a limit is on: a number itself, a text's length; None for what only the run will know."""
    if value is None or isinstance(value, (Mapping, list)):
        return None
    if shape.type_name == "string":
        return len(str(value))
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _finding(place: str, value: Any, most: int, operation: str, values: Values) -> Finding:
    # The parameter that a value is, or the first that it is joined of.
    parts = value["Std:Join"]["Values"] if isinstance(value, Mapping) and "Std:Join" in value else [value]
    name = next(filter(None, map(parameter_of, parts)), place)
    resolved = value if isinstance(value, list) else values.resolved(value)
    limit = f"{operation} takes at most {most}"
    if isinstance(resolved, list):
        return Finding(name, f"{place} has {len(resolved)} entries", limit)
    if isinstance(resolved, str) and not resolved.replace(".", "", 1).isdigit():
        return Finding(name, f"{place} has {len(resolved)} characters, and {limit}", "choose a shorter one")
    problem = f"{resolved} is above the {most} that {operation} takes as {place}"
    return Finding(name, problem, f"set it to at most {most}")
