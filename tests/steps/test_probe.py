"""What a host of the probe measures: a check that fails is a line with a fix, and the others are made all the same."""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto import mock_aws

from params.files import write_json
from params.layout import PROBE_LINE
from params.programs.probe import ProbeLine
from steps import device
from steps.errors import StepError
from steps.probe import main

BUCKET = "probed"
QUICK = ["--services", "--disk-mib", "1", "--volume-gb", "0", "--file-wait-s", "0.2"]


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of the only host of a training job, next to a bucket that holds one object."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("SAGEMAKER_BASE_DIR", str(tmp_path))
    monkeypatch.setenv("TRAINING_JOB_NAME", "one")
    monkeypatch.setattr(device, "DEVICES", tmp_path / "dev")
    monkeypatch.setattr(device, "DRIVER_FILE", tmp_path / "version")
    be(tmp_path, "ml.c5.large")
    with mock_aws():
        s3 = boto3.client("s3", region_name="us-east-1")
        s3.create_bucket(Bucket=BUCKET)
        s3.put_object(Bucket=BUCKET, Key="urls/table.parquet", Body=b"PAR1")
        yield tmp_path


def be(host: Path, instance_type: str) -> None:
    resources = {"hosts": ["algo-1"], "current_host": "algo-1", "current_instance_type": instance_type}
    write_json(host / "input" / "config" / "resourceconfig.json", resources)


def probed(*flags: str) -> dict[str, list[ProbeLine]]:
    """Return the lines of a probe by check, as they are in S3."""
    assert main(["--results-uri", f"s3://{BUCKET}/results", *QUICK, *flags]) == 0
    s3 = boto3.client("s3", region_name="us-east-1")
    result: Mapping[str, Any] = json.load(s3.get_object(Bucket=BUCKET, Key="results/one/algo-1.json")["Body"])
    lines: dict[str, list[ProbeLine]] = {}
    for line in map(ProbeLine.of, result["lines"]):
        lines.setdefault(line.check, []).append(line)
    return lines


def test_a_sound_host_has_a_good_line_for_each_check(host: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = probed("--reads", f"s3://{BUCKET}/urls", "--writes", f"s3://{BUCKET}/shards", f"s3://{BUCKET}/model")
    assert {line.status for own in lines.values() for line in own} == {"good"}
    assert list(lines) == ["driver", "gpus", "interface", "disk", "names", "reads", "writes"]
    assert [line.subject for line in lines["writes"]] == [f"s3://{BUCKET}/shards", f"s3://{BUCKET}/model"]
    logged = [text for text in capsys.readouterr().out.splitlines() if text.startswith(PROBE_LINE)]
    assert len(logged) == sum(map(len, lines.values()))


def test_what_was_written_to_try_it_is_deleted(host: Path) -> None:
    probed("--writes", f"s3://{BUCKET}/shards")
    listed = boto3.client("s3", region_name="us-east-1").list_objects_v2(Bucket=BUCKET)["Contents"]
    assert [item["Key"] for item in listed] == ["results/one/algo-1.json", "urls/table.parquet"]


def test_a_gpu_host_without_a_gpu_is_named_and_the_rest_is_measured(host: Path) -> None:
    be(host, "ml.g5.12xlarge")
    lines = probed("--gpus", "ml.g5.12xlarge=4", "--reads", f"s3://{BUCKET}/urls")
    [driver] = lines["driver"]
    assert driver.status == "failed" and "driver none" in driver.text and "image" in driver.fix
    assert "gpus" not in lines and "hosts" not in lines
    assert lines["reads"][0].status == "good"


def test_fewer_gpus_than_the_type_has_are_named(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    be(host, "ml.g5.12xlarge")
    monkeypatch.setattr("steps.probing.host.gpu_count", lambda container: 3)
    monkeypatch.setattr("steps.probing.host.driver_version", lambda: "580.65.06")
    monkeypatch.setattr("steps.probing.host.choose_device", lambda container, index: None)
    [line] = probed("--gpus", "ml.g5.12xlarge=4")["gpus"]
    assert (line.status, line.text) == ("failed", "torch counts 3 GPUs, and ml.g5.12xlarge has 4")


@pytest.mark.parametrize(
    ("flags", "check", "text", "fix"),
    [
        (["--reads", "s3://elsewhere/urls"], "reads", "NoSuchBucket", "s3:GetObject and s3:ListBucket on elsewhere"),
        (["--reads", f"s3://{BUCKET}/nothing"], "reads", "nothing is there", "copy the data to"),
        (["--writes", "s3://elsewhere/shards"], "writes", "NoSuchBucket", "s3:PutObject"),
        (["--way-out", "127.0.0.1:1"], "way_out", "127.0.0.1:1 does not answer", "NAT gateway"),
        (["--volume-gb", "1000000"], "disk", "asks for 1000000 GB", "volume_size_gb"),
        (["--latents-uri", f"s3://{BUCKET}/latents"], "file_system", "no file system is mounted", "association"),
    ],
)
def test_a_fault_is_a_line_that_names_it_and_its_fix(
    host: Path, flags: list[str], check: str, text: str, fix: str
) -> None:
    [line] = probed(*flags)[check]
    assert line.status == "failed"
    assert text in line.text and fix in line.fix


def test_a_file_system_that_does_not_import_is_told_from_one_that_is_not_mounted(host: Path) -> None:
    (host / "input" / "data" / "latents").mkdir(parents=True)
    [line] = probed("--latents-uri", f"s3://{BUCKET}/latents")["file_system"]
    assert "is mounted, and a new object is not on it after 0.2 s" in line.text


def test_a_service_whose_address_does_not_answer_is_named(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_LOGS", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_ENDPOINT_URL_CLOUDWATCH_LOGS", "http://127.0.0.1:1")
    [line] = probed("--services", "logs")["services"]
    assert (line.subject, line.status) == ("logs", "failed")
    assert "interface endpoint of logs" in line.fix


def test_a_result_that_cannot_be_written_ends_the_job_with_the_reason(host: Path) -> None:
    with pytest.raises(StepError, match=r"s3://elsewhere/one/algo-1.json: .*NoSuchBucket"):
        main(["--results-uri", "s3://elsewhere", *QUICK])


def test_the_environment_is_as_before(host: Path) -> None:
    before = dict(os.environ)
    probed()
    assert dict(os.environ) == before
