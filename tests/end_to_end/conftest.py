"""The local pipeline, run once for the whole test run at a small size; the tests assert on what it left behind."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest

from params.s3 import split_uri

TINY = Path("tests/end_to_end/tiny.yaml")
COMMAND = str(Path(sys.executable).parent / "sd-pipeline")


@dataclass(frozen=True)
class LocalPipeline:
    """A state folder and a runs folder, and the commands on them."""

    state: Path
    runs: Path
    params: Path = TINY

    def command(self, *arguments: str) -> list[str]:
        return [
            COMMAND,
            "run-local",
            "--params",
            str(self.params),
            "--state",
            str(self.state),
            "--runs",
            str(self.runs),
            *arguments,
        ]

    def run(self, *arguments: str, timeout_s: float = 280) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments),
            capture_output=True,
            text=True,
            check=False,
            env=clean_environment(),
            timeout=timeout_s,
        )

    def summary(self, run: str = "latest") -> dict[str, Any]:
        return json.loads((self.runs / run / "summary.json").read_text())

    def client(self, service: str) -> Any:
        url = json.loads((self.state / "control_plane.json").read_text())["url"]
        return boto3.client(
            service,
            endpoint_url=url,
            region_name="us-east-1",
            aws_access_key_id="local",
            aws_secret_access_key="local",
        )

    def down(self) -> None:
        subprocess.run([COMMAND, "local", "down", "--state", str(self.state)], check=False, env=clean_environment())

    def weights(self, execution_id: str, part: str = "unet") -> dict[str, Any]:
        """Return the trained network of a run, by tensor."""
        import io
        import tarfile

        from safetensors.torch import load

        job = self.training_job(execution_id)
        bucket, key = split_uri(job["ModelArtifacts"]["S3ModelArtifacts"])
        archive = self.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read()
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            names = [name for name in tar.getnames() if name.endswith(f"{part}/diffusion_pytorch_model.safetensors")]
            member = tar.extractfile(names[0])
            assert member is not None
            return load(member.read())

    def training_job(self, execution_id: str) -> dict[str, Any]:
        steps = self.steps(execution_id)
        arn = steps["Train"]["Metadata"]["TrainingJob"]["Arn"]
        return self.client("sagemaker").describe_training_job(TrainingJobName=arn.rsplit("/", 1)[-1])

    def steps(self, execution_id: str) -> dict[str, Any]:
        sagemaker = self.client("sagemaker")
        arns = [
            item["PipelineExecutionArn"]
            for item in sagemaker.list_pipeline_executions(PipelineName="sd-pipeline-tiny")[
                "PipelineExecutionSummaries"
            ]
        ]
        arn = next(arn for arn in arns if arn.endswith("/" + execution_id))
        listed = sagemaker.list_pipeline_execution_steps(PipelineExecutionArn=arn)["PipelineExecutionSteps"]
        return {step["StepName"]: step for step in listed}

    def training_log(self, execution_id: str) -> list[dict[str, Any]]:
        path = self.runs / execution_id / "artifacts" / "training_log.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()]


# What an operator's shell may hold; none of it may be found in anything that a run leaves behind or prints.
SECRETS = {
    "AWS_ACCESS_KEY_ID": "AKIAPLANTEDPLANTED00",
    "AWS_SECRET_ACCESS_KEY": "planted/secret/access/key/of/forty/signs",
    "AWS_SESSION_TOKEN": "planted-session-token-0123456789",
    "HF_TOKEN": "hf_plantedplantedplantedplantedplanted",
    "DATABASE_PASSWORD": "planted-password-0123456789",
}


def clean_environment() -> dict[str, str]:
    """Return the environment with planted secrets and nothing else of AWS: a local run needs none of it."""
    return {name: value for name, value in os.environ.items() if not name.startswith("AWS_")} | SECRETS


@pytest.fixture(scope="session")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalPipeline]:
    folder = tmp_path_factory.mktemp("pipeline")
    local = LocalPipeline(folder / "state", folder / "runs")
    yield local
    local.down()


@pytest.fixture(scope="session")
def first_run(pipeline: LocalPipeline) -> dict[str, Any]:
    """Run the pipeline once, whole; return its summary."""
    done = pipeline.run()
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
    return {**pipeline.summary(), "output": done.stdout}


@pytest.fixture(scope="session")
def first_id(first_run: dict[str, Any]) -> str:
    return str(first_run["execution_arn"]).rsplit("/", 1)[-1]
