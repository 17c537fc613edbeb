"""A store of objects in this process, and a control plane in its own, whose images are one small script."""

import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import moto.s3.models as moto_s3
import pytest
from botocore.config import Config
from moto.core.base_backend import BackendDict
from moto.s3.models import s3_backends

from params.cloud import Cloud
from params.layout import ENDED_STATUSES
from pipeline_definition.local.client import LocalControlPlane, ensure_up
from pipeline_definition.local.object_store import ObjectStore
from pipeline_definition.local.processes import marked
from pipeline_definition.local.settings import LocalSettings
from pipeline_definition.session import Target

PROGRAM = Path(__file__).with_name("program.py")


@pytest.fixture
def make_store(tmp_path: Path) -> Iterator[Callable[[], ObjectStore]]:
    """Return a function that opens the store of one folder, again and again as after a restart."""
    classes = moto_s3.FakeKey, moto_s3.FakeMultipart, s3_backends.backend

    def forget() -> None:
        BackendDict.reset()
        s3_backends.bucket_accounts.clear()

    def opened() -> ObjectStore:
        forget()
        return ObjectStore(tmp_path / "state" / "s3", tmp_path / "state" / "s3.jsonl")

    yield opened
    forget()
    moto_s3.FakeKey, moto_s3.FakeMultipart, s3_backends.backend = classes  # type: ignore[misc]


@pytest.fixture
def store(make_store: Callable[[], ObjectStore]) -> ObjectStore:
    opened = make_store()
    opened._backend.create_bucket("bucket", "us-east-1")
    return opened


class ImpatientTarget(Target):
    """A target whose clients do not try again by themselves: what is throttled is seen at once."""

    def client(self, service: str) -> Any:
        config = Config(retries={"total_max_attempts": 1})
        return self.boto_session().client(service, endpoint_url=self.endpoint_url, config=config)


@dataclass
class World:
    """A control plane and clients of it."""

    folder: Path
    grace_s: float = 1.0
    plane: LocalControlPlane | None = None
    images: dict[str, list[str]] = field(default_factory=dict)
    """Those that are not the program of these tests."""
    _clients: dict[str, Any] = field(default_factory=dict)

    def up(self) -> LocalControlPlane:
        images = self.folder / "images.json"
        images.write_text(json.dumps({**self.images, "*": ["python", str(PROGRAM)]}))
        arguments = ("--images", str(images), "--grace-s", str(self.grace_s), "--sync-every-s", "0.2")
        # Relative, as the command line's defaults are.
        state, runs = (Path(os.path.relpath(self.folder / name)) for name in ("state", "runs"))
        self.plane = ensure_up(state, runs, leash=True, arguments=arguments)
        self._clients.clear()
        return self.plane

    def client(self, service: str, config: Config | None = None) -> Any:
        assert self.plane is not None
        if service not in self._clients or config:
            new: Any = boto3.client
            self._clients[service] = new(
                service,
                endpoint_url=self.plane.url,
                region_name="us-east-1",
                aws_access_key_id="local",
                aws_secret_access_key="local",
                config=config,
            )
        return self._clients[service]

    def turn(self, **switches: Any) -> None:
        """Turn switches of local.cloud:; all others are off."""
        ensure_up(self.folder / "state", self.folder / "runs", cloud=Cloud(**switches))

    def as_role(self, service: str) -> Any:
        """Return a client with the jobs' own key."""
        assert self.plane is not None
        new: Any = boto3.client
        keys = {"aws_access_key_id": "role", "aws_secret_access_key": "local"}
        return new(service, endpoint_url=self.plane.url, region_name="us-east-1", **keys)

    @property
    def sagemaker(self) -> Any:
        return self.client("sagemaker")

    def create(self, name: str, steps: list[dict[str, Any]], parameters: list[dict[str, Any]] | None = None) -> None:
        definition = {"Version": "2020-12-01", "Metadata": {}, "Parameters": parameters or [], "Steps": steps}
        self.sagemaker.create_pipeline(
            PipelineName=name, PipelineDefinition=json.dumps(definition), RoleArn=ROLE, ClientRequestToken="t" * 32
        )

    def start(self, name: str, **parameters: str) -> str:
        given = [{"Name": key, "Value": value} for key, value in parameters.items()]
        answer = self.sagemaker.start_pipeline_execution(PipelineName=name, PipelineParameters=given)
        return str(answer["PipelineExecutionArn"])

    def wait(self, arn: str, timeout_s: float = 60.0) -> dict[str, Any]:
        """Wait for an execution's end; return its description."""

        def ended() -> dict[str, Any] | None:
            found: dict[str, Any] = self.sagemaker.describe_pipeline_execution(PipelineExecutionArn=arn)
            return found if found["PipelineExecutionStatus"] in ENDED_STATUSES else None

        answer: dict[str, Any] = until(ended, timeout_s)
        return answer

    def steps(self, arn: str) -> dict[str, dict[str, Any]]:
        found = self.sagemaker.list_pipeline_execution_steps(PipelineExecutionArn=arn)["PipelineExecutionSteps"]
        return {step["StepName"]: step for step in found}

    def run(self, name: str, **parameters: str) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
        arn = self.start(name, **parameters)
        return self.wait(arn), self.steps(arn)

    def log(self, arn: str, path: str) -> str:
        return (self.folder / "runs" / arn.rsplit("/", 1)[-1] / "logs" / path).read_text()

    def put(self, key: str, data: bytes) -> None:
        self.client("s3").put_object(Bucket="bucket", Key=key, Body=data)

    def get(self, key: str) -> bytes:
        return bytes(self.client("s3").get_object(Bucket="bucket", Key=key)["Body"].read())

    def keys(self, prefix: str) -> list[str]:
        found = self.client("s3").list_objects_v2(Bucket="bucket", Prefix=prefix)
        return [item["Key"] for item in found.get("Contents", [])]

    def processes(self) -> list[Any]:
        """All processes of jobs and endpoints of this control plane."""
        return marked(LocalSettings(self.folder / "state", self.folder / "runs").mark)

    def kill(self) -> None:
        """SIGKILL the control plane."""
        assert self.plane is not None and self.plane.process is not None and self.plane.process.stdin is not None
        self.plane.process.kill()
        self.plane.process.wait()
        self.plane.process.stdin.close()


ROLE = "arn:aws:iam::123456789012:role/test"


def until(found: Callable[[], Any], timeout_s: float = 20.0) -> Any:
    """Call until the answer is true; return it."""
    deadline_s = time.monotonic() + timeout_s
    while time.monotonic() < deadline_s:
        answer = found()
        if answer:
            return answer
        time.sleep(0.02)
    raise AssertionError("it did not happen in time")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """One control plane for all tests of a module."""
    made = World(tmp_path_factory.mktemp("world"))
    with made.up():
        made.client("s3").create_bucket(Bucket="bucket")
        yield made


@pytest.fixture
def own_world(tmp_path: Path) -> Iterator[World]:
    """A control plane that a test may kill."""
    made = World(tmp_path)
    made.up()
    made.client("s3").create_bucket(Bucket="bucket")
    yield made
    if made.plane is not None:
        made.plane.close()


def processing(name: str, *arguments: Any, instances: Any = 1, **changes: Any) -> dict[str, Any]:
    """Return a ProcessingStep that runs the program of these tests."""
    step: dict[str, Any] = {
        "Name": name,
        "Type": "Processing",
        "Arguments": {
            "ProcessingResources": {
                "ClusterConfig": {"InstanceType": "ml.m5.large", "InstanceCount": instances, "VolumeSizeInGB": 1}
            },
            "AppSpecification": {
                "ImageUri": "test/image:1",
                "ContainerEntrypoint": ["python", str(PROGRAM), "process"],
                **({"ContainerArguments": list(arguments)} if arguments else {}),
            },
            "RoleArn": ROLE,
        },
    }
    step["Arguments"] |= changes.pop("arguments", {})
    return step | changes


def training_arguments(*, instances: Any = 1, **changes: Any) -> dict[str, Any]:
    """Return the arguments of a training job that runs the program of these tests."""
    return {
        "AlgorithmSpecification": {
            "TrainingInputMode": "File",
            "TrainingImage": "test/image:1",
            "MetricDefinitions": [{"Name": "loss", "Regex": r"loss=([0-9.eE+-]+)"}],
        },
        "RoleArn": ROLE,
        "OutputDataConfig": {"S3OutputPath": "s3://bucket/models"},
        "StoppingCondition": {"MaxRuntimeInSeconds": 60},
        "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": instances, "VolumeSizeInGB": 1},
    } | changes


def training(name: str, *, arguments: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    """Return a TrainingStep."""
    return {"Name": name, "Type": "Training", "Arguments": training_arguments(**(arguments or {}))} | changes


def s3_input(name: str, uri: Any, distribution: str = "FullyReplicated") -> dict[str, Any]:
    """Return a processing input."""
    source = {
        "S3Uri": uri,
        "LocalPath": f"/opt/ml/processing/input/{name}",
        "S3DataType": "S3Prefix",
        "S3InputMode": "File",
        "S3DataDistributionType": distribution,
    }
    return {"InputName": name, "S3Input": source}


def s3_output(name: str, uri: Any, mode: str = "EndOfJob") -> dict[str, Any]:
    """Return a processing output."""
    target = {"S3Uri": uri, "LocalPath": f"/opt/ml/processing/output/{name}", "S3UploadMode": mode}
    return {"OutputName": name, "S3Output": target}
