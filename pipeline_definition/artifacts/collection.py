"""Gathers what a run left behind into one folder that needs no connection afterwards.

Reads SageMaker, CloudWatch Logs and S3 through boto3, on AWS or on the local control plane alike; writes
runs/<execution id>/artifacts/.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from botocore.exceptions import BotoCoreError, ClientError

from params.files import write_bytes
from params.layout import (
    CONTACT_SHEET_FILE,
    EVALUATION,
    LATENTS,
    LINEAGE_FILE,
    MANIFEST_FILE,
    METRICS_FILE,
    MODEL_ARCHIVE,
    OUTPUT_ARCHIVE,
    SAMPLES_DIR,
    SAMPLES_FILE,
    SHARDS,
    THROUGHPUT_STEP,
    TRAINING_LOG_FILE,
)
from params.s3 import join_uri, split_uri
from pipeline_definition.artifacts import jobs
from pipeline_definition.artifacts.archive import read_members
from pipeline_definition.artifacts.data_files import DataPrefix
from pipeline_definition.artifacts.data_sample import sample_of_artifact, spread
from pipeline_definition.artifacts.folder import (
    DEFINITION_FILE,
    EXECUTION_FILE,
    LATENTS_MANIFEST_FILE,
    MODEL_PACKAGE_FILE,
    PARAMETERS_FILE,
    PHASE_FOLDER,
    SHARDS_MANIFEST_FILE,
    TUNING_FILE,
    WENT_IN_DIR,
    WENT_IN_FILE,
    Artifacts,
    ArtifactsError,
    Json,
    parsed,
    parsed_lines,
)
from pipeline_definition.artifacts.redaction import redacted
from pipeline_definition.errors import OperatorError
from pipeline_definition.runs.executions import Execution, Executions, ExecutionStep
from pipeline_definition.session import Target

MAX_FILE_BYTES: Final = 32 * 2**20
# A manifest names every shard: 200,000 of them, for two billion samples, take some 60 MB.
MAX_MANIFEST_BYTES: Final = 256 * 2**20
MAX_ARCHIVE_BYTES: Final = 256 * 2**20
MAX_SAMPLES: Final = 24
MAX_WENT_IN: Final = 12


def collect(target: Target, execution: Execution, folder: Path) -> Artifacts:
    """Gather an execution's artifacts into `folder` and load them.

    Gathered again, each file that can still be had is replaced and the others stay. What cannot be had is named under
    `left_out` in execution.json. Credentials and signed addresses are cut out of everything that is written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _Collector(target, execution, folder).run()
    return Artifacts.load(folder)


@dataclass
class _Collector:
    target: Target
    execution: Execution
    folder: Path
    left_out: dict[str, str] = field(default_factory=dict)
    made: dict[str, jobs.DescribedJob] = field(default_factory=dict)
    """Name of a step to the job that it ran."""
    phases: list[list[str]] = field(default_factory=list)
    """Names of the steps that do the same for one phase each, in order."""

    def run(self) -> None:
        """Write every artifact that can be had, execution.json last."""
        self._sagemaker, self._s3 = self.target.client("sagemaker"), self.target.client("s3")
        self._attempt(DEFINITION_FILE, self._definition)
        for step in self.execution.steps:
            self._attempt(f"job of {step.name}", self._job, step)
            self._outputs(step)
        self._write_json(EXECUTION_FILE, self._about_execution())

    def _attempt(self, name: str, gather: Callable[..., None], *arguments: Any) -> None:
        """Run one part; a part that fails is noted and the others go on."""
        try:
            gather(*arguments)
        except (ClientError, BotoCoreError, ArtifactsError, OperatorError) as error:
            self.left_out[name] = str(error)

    def _definition(self) -> None:
        executions = Executions(self.target)
        definition = executions.definition(self.execution.arn)
        self._write_json(DEFINITION_FILE, definition)
        self.phases = phase_steps(definition)
        given = executions.parameters(self.execution.arn)
        known = definition.get("Parameters", [])
        defaults = {item["Name"]: item.get("DefaultValue") for item in known}
        values = {item["Name"]: _typed(item["Type"], given.get(item["Name"], defaults[item["Name"]])) for item in known}
        self._write_json(PARAMETERS_FILE, {"values": values, "defaults": defaults})

    def _job(self, step: ExecutionStep) -> None:
        job = jobs.describe(self._sagemaker, step)
        if job is not None:
            self.made[step.name] = job

    def _outputs(self, step: ExecutionStep) -> None:
        job = self.made.get(step.name, jobs.DescribedJob("", ""))
        if job.kind == jobs.TUNING:
            self._attempt(TUNING_FILE, self._tuning, job)
        if job.kind == jobs.TRAINING:
            folder = self._phase_folder(step)
            self._attempt(folder + TRAINING_LOG_FILE, self._training, job, folder)
        # A prefix may still hold what an earlier run wrote: only a step that succeeded vouches for it.
        if step.status == "Succeeded":
            self._processing(job, self._phase_folder(step))
            self._model_package(step)

    def _phase_folder(self, step: ExecutionStep) -> str:
        """Return where a step's files go: a former phase's have a folder of their own, the last one's have none."""
        begun = {begun.name for begun in self.execution.steps}
        of_program = next((names for names in self.phases if step.name in names), [])
        later = of_program[of_program.index(step.name) + 1 :] if of_program else []
        if not begun.intersection(later):
            return ""
        return PHASE_FOLDER.format(number=of_program.index(step.name) + 1) + "/"

    def _processing(self, job: jobs.DescribedJob, folder: str) -> None:
        for output, name in ((SHARDS, SHARDS_MANIFEST_FILE), (LATENTS, folder + LATENTS_MANIFEST_FILE)):
            if output in job.outputs:
                self._attempt(
                    name, self._json_at, join_uri(job.outputs[output], MANIFEST_FILE), name, MAX_MANIFEST_BYTES
                )
        if SHARDS in job.outputs:
            self._attempt(WENT_IN_DIR, self._went_in, job.outputs[SHARDS])
        uri = job.outputs.get(EVALUATION)
        if uri is not None:
            self._attempt(METRICS_FILE, self._json_at, join_uri(uri, METRICS_FILE), METRICS_FILE)
            self._attempt(CONTACT_SHEET_FILE, self._file_at, join_uri(uri, CONTACT_SHEET_FILE), CONTACT_SHEET_FILE)
            self._attempt(SAMPLES_DIR, self._samples, uri)
            self._attempt(SAMPLES_FILE, self._captions, uri)

    def _went_in(self, uri: str) -> None:
        sample = sample_of_artifact(DataPrefix(self._s3, uri), uri)
        pictures = spread(sample.pictures if sample else (), MAX_WENT_IN)
        captions = {f"{number:02d}.jpg": picture.caption for number, picture in enumerate(pictures)}
        for name, picture in zip(captions, pictures, strict=True):
            self._write(f"{WENT_IN_DIR}/{name}", picture.jpeg)
        self._write_json(WENT_IN_FILE, {"captions": captions})

    def _tuning(self, job: jobs.DescribedJob) -> None:
        self._write_json(TUNING_FILE, jobs.tuning(self._sagemaker, job.name))

    def _training(self, job: jobs.DescribedJob, folder: str) -> None:
        """Take the log and the lineage from beside the model, else, where it is small, from the model's own archive."""
        wanted = (TRAINING_LOG_FILE, LINEAGE_FILE)
        prefix = join_uri(job.outputs["model"], f"{job.name}/output")
        found: dict[str, bytes] = {}
        for archive in (OUTPUT_ARCHIVE, MODEL_ARCHIVE):
            if len(found) < len(wanted):
                found = {**self._members(join_uri(prefix, archive), wanted), **found}
        if TRAINING_LOG_FILE in found:
            entries = parsed_lines(found[TRAINING_LOG_FILE])
            self._write(
                folder + TRAINING_LOG_FILE, "".join(json.dumps(redacted(entry)) + "\n" for entry in entries).encode()
            )
        if LINEAGE_FILE in found:
            self._write_json(folder + LINEAGE_FILE, parsed(found[LINEAGE_FILE], LINEAGE_FILE))
        missing = [name for name in wanted if name not in found]
        if missing:
            raise ArtifactsError(f"no {' and no '.join(missing)} in the archives under {prefix}")

    def _members(self, uri: str, names: tuple[str, ...]) -> dict[str, bytes]:
        try:
            return read_members(self._open(uri, MAX_ARCHIVE_BYTES), names)
        except (ClientError, ArtifactsError):
            # The other archive may have them; what neither has is noted.
            return {}

    def _samples(self, uri: str) -> None:
        bucket, prefix = split_uri(join_uri(uri, SAMPLES_DIR, ""), ArtifactsError)
        listed = self._s3.list_objects_v2(Bucket=bucket, Prefix=prefix).get("Contents", [])
        names = sorted(str(item["Key"]).removeprefix(prefix) for item in listed)
        pictures = [name for name in names if name.endswith(".png") and "/" not in name and not name.startswith(".")]
        for name in pictures[:MAX_SAMPLES]:
            self._file_at(join_uri(uri, f"{SAMPLES_DIR}/{name}"), f"{SAMPLES_DIR}/{name}")

    def _captions(self, uri: str) -> None:
        entries = parsed(self._open(join_uri(uri, SAMPLES_FILE)).read(), SAMPLES_FILE)
        kept = [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
        self._write_json(SAMPLES_FILE, {"samples": kept[:MAX_SAMPLES]})

    def _model_package(self, step: ExecutionStep) -> None:
        arn = step.arn("RegisterModel")
        if arn:
            self._attempt(MODEL_PACKAGE_FILE, self._describe_model_package, arn)

    def _describe_model_package(self, arn: str) -> None:
        about = self._sagemaker.describe_model_package(ModelPackageName=arn)
        self._write_json(MODEL_PACKAGE_FILE, jobs.model_package(about))

    def _about_execution(self) -> Json:
        starts = [step.start for step in self.execution.steps if step.start]
        ends = [step.end for step in self.execution.steps if step.end]
        return {
            "arn": self.execution.arn,
            "id": self.execution.id,
            "status": self.execution.status,
            "failure_reason": self.execution.failure_reason,
            "region": self.target.region,
            "is_local": self.target.is_local,
            "start": min(starts).isoformat() if starts else None,
            "end": max(ends).isoformat() if ends else None,
            "steps": [self._about_step(step) for step in self.execution.steps],
            "left_out": dict(sorted(self.left_out.items())),
        }

    def _about_step(self, step: ExecutionStep) -> Json:
        job = self.made.get(step.name)
        return {
            "name": step.name,
            "status": step.status,
            "start": step.start.isoformat() if step.start else None,
            "end": step.end.isoformat() if step.end else None,
            "seconds": step.seconds,
            "cached": step.cached,
            "attempts": step.attempts,
            "failure_reason": step.failure_reason,
            "metadata": step.metadata,
            "job": job.as_dict() if job else None,
            "log_tail": jobs.log_tail(self.target, step) if step.status == "Failed" else [],
        }

    def _json_at(self, uri: str, name: str, max_bytes: int = MAX_FILE_BYTES) -> None:
        self._write_json(name, parsed(self._open(uri, max_bytes).read(), uri))

    def _file_at(self, uri: str, name: str) -> None:
        self._write(name, self._open(uri).read())

    def _open(self, uri: str, max_bytes: int = MAX_FILE_BYTES) -> Any:
        bucket, key = split_uri(uri, ArtifactsError)
        try:
            response = self._s3.get_object(Bucket=bucket, Key=key)
        except ClientError as error:
            raise ArtifactsError(f"{uri}: {error.response['Error'].get('Message') or error}") from None
        if response["ContentLength"] > max_bytes:
            raise ArtifactsError(
                f"{uri}: {response['ContentLength']:,} bytes are more than the {max_bytes:,} kept here"
            )
        return response["Body"]

    def _write_json(self, name: str, value: Any) -> None:
        self._write(name, (json.dumps(redacted(value), indent=2, default=str) + "\n").encode())

    def _write(self, name: str, content: bytes) -> None:
        write_bytes(self.folder / name, content)


def phase_steps(definition: Json) -> list[list[str]]:
    """Return the steps that run encode, and those that train, in the order of the phases."""
    found: dict[str, list[str]] = {"encode": [], "train": []}
    for step in definition.get("Steps", []):
        arguments = step.get("Arguments", {})
        if step.get("Type") == "Training" and step["Name"] != THROUGHPUT_STEP:
            found["train"].append(step["Name"])
        elif arguments.get("AppSpecification", {}).get("ContainerEntrypoint", [""])[-1] == "encode":
            found["encode"].append(step["Name"])
    return list(found.values())


def _typed(kind: str, value: Any) -> Any:
    """Return a parameter's value as the definition types it; the API hands out texts."""
    if not isinstance(value, str) or kind == "String":
        return value
    try:
        return {"Integer": int, "Float": float}.get(kind, str)(value)
    except ValueError:
        return value
