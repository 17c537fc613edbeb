"""Gathers what a run left behind into one folder that needs no connection afterwards.

Reads SageMaker, CloudWatch Logs and S3, of AWS or of the local control plane; writes runs/<execution id>/artifacts/.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from botocore.exceptions import BotoCoreError, ClientError

from params import layout
from params.files import write_bytes, write_text
from params.s3 import join_uri
from pipeline_definition.artifacts import folder as files
from pipeline_definition.artifacts import jobs
from pipeline_definition.artifacts.archive import MAX_SAMPLES, open_object, picture_names, read_members, redacted
from pipeline_definition.artifacts.data_sample import DataPrefix, sample_of_artifact, spread
from pipeline_definition.artifacts.folder import Artifacts, Json, parsed, parsed_lines
from pipeline_definition.errors import OperatorError
from pipeline_definition.runs.executions import Execution, Executions, ExecutionStep
from pipeline_definition.session import Target

MAX_FILE_BYTES: Final = 32 * 2**20
# A manifest names every shard: 200,000 of them, for two billion samples, take some 60 MB.
MAX_MANIFEST_BYTES: Final = 256 * 2**20
MAX_ARCHIVE_BYTES: Final = 256 * 2**20
MAX_WENT_IN: Final = 12
TRAINING_RECORD: Final = (layout.TRAINING_LOG_FILE, layout.LINEAGE_FILE)


def collect(target: Target, execution: Execution, folder: Path) -> Artifacts:
    """Gather what is available into `folder`, credentials cut out, beside what is there; `left_out` names the rest."""
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
    """The job of each step, by the step's name."""
    phases: list[list[str]] = field(default_factory=list)
    """Names of the steps of each program, one per phase, in order."""

    def run(self) -> None:
        """Write every artifact that is available, execution.json last."""
        self._sagemaker, self._s3 = self.target.client("sagemaker"), self.target.client("s3")
        with self._attempt(files.DEFINITION_FILE):
            self._definition()
        for step in self.execution.steps:
            with self._attempt(f"job of {step.name}"):
                if job := jobs.describe(self._sagemaker, step):
                    self.made[step.name] = job
            if step.name in self.made:
                self._outputs_of(self.made[step.name], step)
            if step.status == "Succeeded" and (package := step.arn("RegisterModel")):
                with self._attempt(files.MODEL_PACKAGE_FILE):
                    about = self._sagemaker.describe_model_package(ModelPackageName=package)
                    self._write_json(files.MODEL_PACKAGE_FILE, jobs.model_package(about))
        self._write_json(files.EXECUTION_FILE, self._about_execution())

    @contextmanager
    def _attempt(self, name: str) -> Iterator[None]:
        """Record why a part is not available, and let the others follow."""
        try:
            yield
        except (ClientError, BotoCoreError, OperatorError) as error:
            self.left_out[name] = str(error)

    def _definition(self) -> None:
        executions = Executions(self.target)
        definition = executions.definition(self.execution.arn)
        self._write_json(files.DEFINITION_FILE, definition)
        self.phases = phase_steps(definition)
        given = executions.parameters(self.execution.arn)
        values, defaults = {}, {}
        for item in definition.get("Parameters", []):
            name, kind = item["Name"], {"Integer": int, "Float": float}.get(item["Type"], str)
            defaults[name] = item.get("DefaultValue")
            values[name] = given.get(name, defaults[name])
            # The API returns text; a value has the type that the definition gives it.
            with suppress(ValueError):
                values[name] = kind(values[name]) if isinstance(values[name], str) else values[name]
        self._write_json(files.PARAMETERS_FILE, {"values": values, "defaults": defaults})

    def _outputs_of(self, job: jobs.DescribedJob, step: ExecutionStep) -> None:
        if job.kind == jobs.TUNING:
            with self._attempt(files.TUNING_FILE):
                self._write_json(files.TUNING_FILE, jobs.tuning(self._sagemaker, job.name))
        if job.kind == jobs.TRAINING:
            folder = self._phase_folder(step)
            with self._attempt(folder + layout.TRAINING_LOG_FILE):
                self._training(job, folder)
        # A prefix may still hold what an earlier run wrote: only a step that succeeded vouches for it.
        if step.status == "Succeeded":
            self._processing(job, self._phase_folder(step))

    def _phase_folder(self, step: ExecutionStep) -> str:
        """Return the folder of a step's files: one for each former phase, and the top folder for the last phase."""
        begun = {begun.name for begun in self.execution.steps}
        of_program = next((names for names in self.phases if step.name in names), [])
        later = of_program[of_program.index(step.name) + 1 :] if of_program else []
        if not begun.intersection(later):
            return ""
        return files.PHASE_FOLDER.format(number=of_program.index(step.name) + 1) + "/"

    def _processing(self, job: jobs.DescribedJob, folder: str) -> None:
        judged = [layout.METRICS_FILE, layout.CONTACT_SHEET_FILE, layout.SAMPLES_FILE]
        judged += [layout.COPIES_FILE] if any(layout.DESCRIPTORS in one.outputs for one in self.made.values()) else []
        for output, file, name in (
            (layout.SHARDS, layout.MANIFEST_FILE, files.SHARDS_MANIFEST_FILE),
            (layout.LATENTS, layout.MANIFEST_FILE, folder + files.LATENTS_MANIFEST_FILE),
            *((layout.EVALUATION, file, file) for file in judged),
        ):
            if uri := job.outputs.get(output):
                with self._attempt(name):
                    self._copy(join_uri(uri, file), name)
        if uri := job.outputs.get(layout.SHARDS):
            with self._attempt(files.WENT_IN_DIR):
                self._went_in(uri)
        if uri := job.outputs.get(layout.EVALUATION):
            with self._attempt(layout.SAMPLES_DIR):
                pictures = join_uri(uri, layout.SAMPLES_DIR)
                for name in picture_names(self._s3, pictures):
                    self._copy(join_uri(pictures, name), f"{layout.SAMPLES_DIR}/{name}")

    def _went_in(self, uri: str) -> None:
        # Under the prefix an earlier run may have left captions that this one did not train on.
        has_written = any(step.name == "Recaption" for step in self.execution.steps)
        beside = DataPrefix(self._s3, uri.replace(f"/{layout.SHARDS}/", f"/{layout.CAPTIONS}/"))
        sample = sample_of_artifact(DataPrefix(self._s3, uri), uri, beside if has_written else None)
        pictures = spread(sample.pictures if sample else (), MAX_WENT_IN)
        captions = {f"{number:02d}.jpg": picture.caption for number, picture in enumerate(pictures)}
        written = dict(zip(captions, (picture.written for picture in pictures), strict=True))
        for name, picture in zip(captions, pictures, strict=True):
            write_bytes(self.folder / files.WENT_IN_DIR / name, picture.jpeg)
        self._write_json(files.WENT_IN_FILE, {"captions": captions, "written": written})

    def _training(self, job: jobs.DescribedJob, folder: str) -> None:
        """Take the log and the lineage from the output archive, else from the model's archive if that is small."""
        prefix = join_uri(job.outputs["model"], f"{job.name}/output")
        members: dict[str, bytes] = {}
        for archive in (layout.OUTPUT_ARCHIVE, layout.MODEL_ARCHIVE):
            # The other archive may have them; what neither has is reported below.
            with suppress(ClientError, OperatorError):
                if len(members) < len(TRAINING_RECORD):
                    stream = open_object(self._s3, join_uri(prefix, archive), MAX_ARCHIVE_BYTES)
                    members = {**read_members(stream, TRAINING_RECORD), **members}
        if log := members.get(layout.TRAINING_LOG_FILE):
            lines = (json.dumps(redacted(entry)) + "\n" for entry in parsed_lines(log))
            write_text(self.folder / folder / layout.TRAINING_LOG_FILE, "".join(lines))
        if lineage := members.get(layout.LINEAGE_FILE):
            self._write_json(folder + layout.LINEAGE_FILE, parsed(lineage, layout.LINEAGE_FILE))
        missing = [name for name in TRAINING_RECORD if name not in members]
        if missing:
            raise OperatorError(f"no {' and no '.join(missing)} in the archives under {prefix}")

    def _about_execution(self) -> Json:
        steps = []
        for step in self.execution.steps:
            job, failed = self.made.get(step.name), step.status == "Failed"
            about = {"seconds": step.seconds, "job": asdict(job) if job else None}
            steps.append({**asdict(step), **about, "log_tail": jobs.log_tail(self.target, step) if failed else []})
        return {
            "arn": self.execution.arn,
            "id": self.execution.id,
            "status": self.execution.status,
            "failure_reason": self.execution.failure_reason,
            "region": self.target.region,
            "is_local": self.target.is_local,
            "start": min((step.start for step in self.execution.steps if step.start), default=None),
            "end": max((step.end for step in self.execution.steps if step.end), default=None),
            "steps": steps,
            "left_out": dict(sorted(self.left_out.items())),
        }

    def _copy(self, uri: str, name: str) -> None:
        """Write a file as it is; of JSON what may be shown, and of the captions those of the pictures that are kept."""
        limit = MAX_MANIFEST_BYTES if uri.endswith(layout.MANIFEST_FILE) else MAX_FILE_BYTES
        content = open_object(self._s3, uri, limit).read()
        if not name.endswith(".json"):
            text = redacted(content.decode(errors="replace")).encode() if name.endswith(".html") else content
            write_bytes(self.folder / name, text)
            return
        value = parsed(content, uri)
        if name == layout.SAMPLES_FILE:
            kept = [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []
            value = {"samples": kept[:MAX_SAMPLES]}
        self._write_json(name, value)

    def _write_json(self, name: str, value: Any) -> None:
        def as_text(one: Any) -> str:
            # JSON has no word for a time: it is written as ISO 8601 has it.
            return one.isoformat() if isinstance(one, datetime) else str(one)

        write_text(self.folder / name, json.dumps(redacted(value), indent=2, default=as_text) + "\n")


def phase_steps(definition: Json) -> list[list[str]]:
    """Return the steps that run encode, and those that train, in the order of the phases."""
    encodes, trainings = [], []
    for step in definition.get("Steps", []):
        arguments = step.get("Arguments", {})
        if step.get("Type") == "Training" and step["Name"] != layout.THROUGHPUT_STEP:
            trainings.append(step["Name"])
        elif arguments.get("AppSpecification", {}).get("ContainerEntrypoint", [""])[-1] == "encode":
            encodes.append(step["Name"])
    return [encodes, trainings]
