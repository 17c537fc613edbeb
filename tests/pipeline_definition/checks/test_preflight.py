"""Preflight: each thing that would fail on the cluster, refused by name, and the fix that it names works."""

import gzip
import io
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st
from moto import mock_aws
from moto.server import ThreadedMotoServer

from params.families import UNET
from params.settings import Settings, load_settings
from pipeline_definition.checks import account as account_checks
from pipeline_definition.checks.findings import Finding
from pipeline_definition.checks.jobs import batch_findings
from pipeline_definition.checks.preflight import preflight
from pipeline_definition.cost.host_hours import priced
from pipeline_definition.infrastructure.stack import fill
from pipeline_definition.jobs.instances import Instance, instance, known_models, known_types
from pipeline_definition.jobs.planned import PlannedJob, Values, planned_jobs
from pipeline_definition.session import Target
from tests.params.test_parameter_sets import STACK
from tests.pipeline_definition.definitions import definition_of

ACCOUNT = "123456789012"


@pytest.fixture(scope="module")
def settings() -> Settings:
    return fill(load_settings(Path("params/octank_100gb.yaml")), STACK)


@pytest.fixture(scope="module")
def definition(settings: Settings) -> dict[str, Any]:
    from pipeline_definition.definition.pipeline import build_definition

    content: dict[str, Any] = json.loads(build_definition(priced(settings)))
    return content


def found(settings: Settings, definition: dict[str, Any], **changes: str) -> dict[str, Finding]:
    return {finding.parameter: finding for finding in preflight(settings, definition, changes)}


# What can be told without a network.


def test_a_sound_start_has_nothing_in_its_way(settings: Settings, definition: dict[str, Any]) -> None:
    assert preflight(settings, definition, {"TrainingInstanceCount": "2", "MaxFid": "20.5"}) == []


@pytest.mark.parametrize(
    ("name", "value", "problem", "fix"),
    [
        ("TrainingInstanceCont", "8", "unknown parameter", "did you mean TrainingInstanceCount"),
        ("TrainingInstanceCount", "many", "not an integer", ""),
        ("TrainingInstanceCount", "0", "0 hosts", "1 or more"),
        ("TrainingInstanceCount", "3", "does not divide", "set it to 1, 2 or 4"),
        ("TrainingInstanceType", "ml.p4d.24xlage", "no 'ml.p4d.24xlage' for a training job", "ml.p4d.24xlarge"),
        ("TrainingInstanceType", "ml.c6i.4xlarge", "no NVIDIA GPU", "ml.p4d.24xlarge"),
        ("TrainingInstanceType", "ml.p3.16xlarge", "too old for the CUDA 13", "ml.p4d.24xlarge"),
        ("TrainingInstanceType", "ml.g4dn.12xlarge", "no bfloat16", "float32"),
        ("EncodeInstanceType", "ml.p4d.24xlarge", "for a processing job", "botocore"),
        ("EndpointInstanceType", "ml.m5.large", "EndpointConfig needs one", "ml.g5.2xlarge"),
        ("GlobalBatchSize", "0", "a global batch of 0", "1 or more"),
        ("TrainingSamples", "10000000", "4,882.81 steps of 2,048", "set it to 9998336 or 10000384"),
        ("TrainingSamples", "2048000", "end within the warm-up", "train.warmup_samples"),
        ("TuneSamples", "2000", "less than one step", "2,048 or more"),
        ("EvaluationSamples", "1", "1 pictures have no distance", "2 or more"),
        ("EvaluationSamples", "50000", "at most 30,000 captions are held out", "encode.heldout_fraction"),
        ("FsxId", "my-file-system", "not the id of a file system", "file_system.kind to s3"),
        ("FsxId", "fs-00000000000000000", "placeholder", "--stack"),
        ("FsxPath", "", "not a path on the file system", "<mount name>"),
        ("FsxPath", "latents", "not a path on the file system", "<mount name>"),
        ("FsxPath", "/abcdefgh/", "not a path on the file system", "<mount name>"),
        ("UrlTable", "/data/urls.parquet", "not an S3 address", "s3://BUCKET"),
        ("Bucket", "s3://bucket", "not the name of a bucket", "name alone"),
        ("TrainingImage", "pytorch", "not an image in ECR", "REPOSITORY:TAG"),
        ("TrainingImage", f"{ACCOUNT}.dkr.ecr.eu-west-1.amazonaws.com/a:b", "it is in eu-west-1", "us-east-1"),
        ("DataImage", "000000000000.dkr.ecr.us-east-1.amazonaws.com/a:b", "placeholder", "build.sh"),
        ("MaxFid", "-1", "not an FID", "0 or more"),
        ("MaxFid", "nan", "not an FID", "0 or more"),
        ("EvaluationCaptions", "coco.tsv", "neither an S3 address nor 'heldout'", "s3://BUCKET/captions.tsv"),
        ("ApprovedModel", "latest", "neither an S3 address nor 'none'", "model.tar.gz"),
        ("MinClipScore", "15", "not a cosine", "0.15"),
        ("ApprovalStatus", "Perhaps", "not one of PendingManualApproval", ""),
        ("EndpointName", "a_b", "does not match", "another name"),
        ("EndpointName", "a" * 51, "does not match", "another name"),
        ("DatasetName", "../other", "does not match", "another name"),
    ],
)
def test_a_bad_value_is_refused_by_name_with_the_fix(
    settings: Settings, definition: dict[str, Any], name: str, value: str, problem: str, fix: str
) -> None:
    findings = found(settings, definition, **{name: value})
    assert name in findings, findings
    assert problem in findings[name].problem
    assert fix in str(findings[name])


def test_the_suggested_hosts_and_batches_are_accepted(settings: Settings, definition: dict[str, Any]) -> None:
    fix = found(settings, definition, TrainingInstanceCount="3")["TrainingInstanceCount"].fix
    hosts, batch = re.match(r"set it to (.+), or set GlobalBatchSize to a multiple of \d+ such as (\d+)", fix).groups()  # type: ignore[union-attr]
    for count in re.findall(r"\d+", hosts):
        assert found(settings, definition, TrainingInstanceCount=count) == {}
    accepted = found(settings, definition, TrainingInstanceCount="3", GlobalBatchSize=batch)
    assert "TrainingInstanceCount" not in accepted


@given(
    batch=st.integers(1, 8192),
    sizes=st.lists(st.integers(1, 128), min_size=1, max_size=3),
    gpus=st.sampled_from([1, 4, 8]),
    hosts=st.integers(1, 16),
)
def test_a_batch_is_refused_exactly_when_some_accumulation_is_no_whole_number(
    batch: int, sizes: list[int], gpus: int, hosts: int
) -> None:
    job = PlannedJob(
        step="Train",
        kind="training",
        program="train",
        instance=Instance("ml.any", gpus, None),
        count=hosts,
        type_parameter="TrainingInstanceType",
        count_parameter="TrainingInstanceCount",
        hyperparameters={"global_batch_size": str(batch)},
    )
    findings = list(batch_findings(job, tuple(map(str, sizes)), Values({"Parameters": []}, {}), gpus))
    whole = all((batch / (size * gpus * hosts)).is_integer() for size in sizes)
    assert bool(findings) is not whole


def test_the_search_is_checked_for_tunes_hosts_too(settings: Settings, definition: dict[str, Any]) -> None:
    finding = found(settings, definition, TuneInstanceCount="3")["TuneInstanceCount"]
    assert "Tune's micro-batch of 32 or 64 x 8 ranks x 3 hosts" in finding.problem


def test_held_out_captions_are_counted_from_the_rows_that_are_asked_for(
    settings: Settings, definition: dict[str, Any]
) -> None:
    finding = found(settings, definition, MaxRows="100000")["EvaluationSamples"]
    assert "at most 1,000 captions" in finding.problem


def test_a_forecast_above_the_budget_is_refused(settings: Settings, definition: dict[str, Any]) -> None:
    refused = found(settings, definition, BudgetUsd="10")
    assert set(refused) == {"BudgetUsd"}
    assert refused["BudgetUsd"].blocking
    assert found(settings, definition, BudgetUsd="1e9") == {}


def test_an_empty_interval_of_the_search_is_refused(settings: Settings, definition: dict[str, Any]) -> None:
    rate = settings.tune.learning_rate.model_copy(update={"high": 1e-5})
    tune = settings.tune.model_copy(update={"learning_rate": rate})
    findings = found(settings.model_copy(update={"tune": tune}), definition)
    assert "is empty" in findings["tune.learning_rate"].problem


def test_buckets_need_pictures_of_many_shapes_that_are_encoded_beforehand(
    settings: Settings, definition: dict[str, Any]
) -> None:
    encode = settings.encode.model_copy(update={"max_bucket_ratio": 2.0, "max_train_rows": 8192})
    asked = settings.model_copy(update={"encode": encode})
    findings = found(asked, definition)
    assert findings["download.resize_mode"].fix == "set it to keep_ratio, or encode.max_bucket_ratio to 1"
    assert "encode.max_train_rows" in findings["encode.max_bucket_ratio"].fix
    kept = settings.download.model_copy(update={"resize_mode": "keep_ratio"})
    whole = encode.model_copy(update={"max_train_rows": 0})
    assert found(asked.model_copy(update={"download": kept, "encode": whole}), definition) == {}


def test_a_file_system_without_a_network_is_refused(settings: Settings) -> None:
    findings = found(settings, definition_of("octank_100gb"), FsxId=STACK["FileSystemId"])
    assert "cannot reach FSx for Lustre" in findings["account.subnets"].problem


def test_without_a_file_system_nobody_asks_for_one() -> None:
    from pipeline_definition.definition.pipeline import build_definition

    base = load_settings(Path("params/octank_100gb.yaml"))
    kind = base.file_system.model_copy(update={"kind": "s3"})
    s3 = base.model_copy(update={"file_system": kind})
    names = found(s3, json.loads(build_definition(s3)))
    assert not {"FsxId", "FsxPath", "account.subnets"} & set(names)


def test_the_placeholders_of_a_delivered_set_are_all_named() -> None:
    base = load_settings(Path("params/octank_100gb.yaml"))
    names = set(found(base, definition_of("octank_100gb")))
    assert names >= {"DataImage", "TrainingImage", "InferenceImage", "Bucket", "UrlTable", "FsxId", "account.role_arn"}


def test_the_offline_part_takes_less_than_two_seconds_and_no_sdk(
    settings: Settings, definition: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "definition.json").write_text(json.dumps(definition), encoding="utf-8")
    (tmp_path / "settings.json").write_text(settings.model_dump_json(), encoding="utf-8")
    program = """
import json, sys, time
from pathlib import Path
folder = Path(sys.argv[1])
start_s = time.process_time()
from params.settings import Settings
from pipeline_definition.checks.preflight import preflight
settings = Settings.model_validate_json((folder / "settings.json").read_text())
definition = json.loads((folder / "definition.json").read_text())
findings = preflight(settings, definition, {"TrainingInstanceCount": "3"})
assert [finding.parameter for finding in findings] == ["TrainingInstanceCount"], findings
assert not {"sagemaker", "torch", "pandas"} & set(sys.modules)
print(time.process_time() - start_s)
"""
    result = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True, timeout=60
    )
    assert float(result.stdout) < 2.0


# The table of instances.


def test_the_gpus_are_those_that_ec2_describes() -> None:
    packed = resources.files("moto.ec2.resources").joinpath("instance_types.json.gz").read_bytes()
    described = json.loads(gzip.decompress(packed))
    types = {*known_types("training"), *known_types("processing"), *known_types("endpoint")}
    compared = 0
    for name in sorted(types & {f"ml.{kind}" for kind in described}):
        gpus = described[name.removeprefix("ml.")].get("GpuInfo", {}).get("Gpus", [])
        nvidia = [gpu for gpu in gpus if gpu["Manufacturer"] == "NVIDIA"]
        about = instance(name)
        assert about.gpus == sum(gpu["Count"] for gpu in nvidia), name
        if nvidia:
            assert about.gpu is not None
            assert about.gpu.memory_mib == nvidia[0]["MemoryInfo"]["SizeInMiB"], name
            compared += 1
    assert compared > 50


def test_every_step_of_the_pipeline_is_a_planned_job(settings: Settings, definition: dict[str, Any]) -> None:
    jobs = {job.step: job for job in planned_jobs(definition, Values(definition, {}))}
    assert {name: job.program for name, job in jobs.items()} == {
        "Download": "download",
        "Encode": "encode",
        "Tune": "train",
        "Train": "train",
        "Evaluate": "evaluate",
        "EndpointConfig": "serve",
    }
    assert (jobs["Train"].instance.gpus, jobs["Train"].max_runtime_s) == (8, 172800)
    assert jobs["Tune"].choices["micro_batch_size"] == ("32", "64")


# What the account tells.


@pytest.fixture
def target(monkeypatch: pytest.MonkeyPatch) -> Iterator[Target]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    with mock_aws():
        yield Target("us-east-1")


@pytest.fixture
def account(target: Target, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """An account with everything that the start needs; tests take something away."""
    s3 = target.client("s3")
    s3.create_bucket(Bucket=STACK["BucketName"])
    for file in UNET.config_files:
        s3.put_object(Bucket=STACK["BucketName"], Key=f"pretrained/stable-diffusion-2-base/{file}", Body=b"{}")
    unet = json.dumps(known_models()[0].denoiser).encode()
    s3.put_object(Bucket=STACK["BucketName"], Key="pretrained/stable-diffusion-2-base/unet/config.json", Body=unet)
    for kind in ("data", "training", "inference"):
        push(target, f"sd-pipeline-{kind}")
    told: dict[str, Any] = {
        "columns": ["URL", "TEXT"],
        "quotas": {"ml.p4d.24xlarge for training job usage": 1.0},
        "file_systems": [{"Lifecycle": "AVAILABLE", "LustreConfiguration": {"MountName": "abcdefgh"}}],
        "links": [{"FileSystemPath": "/latents", "DataRepositoryPath": f"s3://{STACK['BucketName']}/latents/"}],
        "routes": [{"Routes": [{"DestinationCidrBlock": "0.0.0.0/0", "NatGatewayId": "nat-1"}]}],
    }
    monkeypatch.setattr(account_checks, "url_table_columns", lambda _target, _address: told["columns"])
    monkeypatch.setattr(Target, "client", lambda self, service: Told(service, told))
    yield told


class Told:
    """A client whose answers moto does not know how to give; everything else goes to moto."""

    def __init__(self, service: str, told: dict[str, Any]) -> None:
        self._client: Any = boto3.client(service, region_name="us-east-1")  # type: ignore[call-overload]
        self._told = told

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def describe_file_systems(self, FileSystemIds: list[str]) -> dict[str, Any]:  # noqa: N803
        return {"FileSystems": self._told["file_systems"]}

    def describe_data_repository_associations(self, Filters: list[Any]) -> dict[str, Any]:  # noqa: N803
        return {"Associations": self._told["links"]}

    def describe_route_tables(self, Filters: list[Any]) -> dict[str, Any]:  # noqa: N803
        return {"RouteTables": self._told["routes"]}

    def get_paginator(self, name: str) -> Any:
        return self if name == "list_service_quotas" else self._client.get_paginator(name)

    def paginate(self, ServiceCode: str) -> list[dict[str, Any]]:  # noqa: N803
        return [{"Quotas": [{"QuotaName": key, "Value": value} for key, value in self._told["quotas"].items()]}]


def push(target: Target, repository: str) -> None:
    ecr = target.client("ecr")
    ecr.create_repository(repositoryName=repository)
    ecr.put_image(
        repositoryName=repository,
        imageManifest=json.dumps({"schemaVersion": 2, "config": {"digest": repository}, "layers": []}),
        imageManifestMediaType="application/vnd.docker.distribution.manifest.v2+json",
        imageTag="latest",
    )


@pytest.mark.usefixtures("account")
def test_an_account_that_has_everything_has_nothing_in_its_way(
    settings: Settings, definition: dict[str, Any], target: Target
) -> None:
    assert preflight(settings, definition, {}, target) == []


@pytest.mark.parametrize(
    ("key", "value", "parameter", "text"),
    [
        ("columns", [], "UrlTable", "no parquet, CSV, TSV, JSON or text file"),
        ("columns", ["URL", "caption"], "UrlTable", "set download.caption_column to one of: URL, caption"),
        ("quotas", {"ml.p4d.24xlarge for training job usage": 0.0}, "TrainingInstanceCount", "is 0"),
        ("quotas", {"Longest run time for a training job": 3600.0}, "train.job.max_runtime_s", "quota is 3600 s"),
        ("file_systems", [], "FsxId", "there is no file system"),
        ("file_systems", [{"Lifecycle": "CREATING"}], "FsxId", "is CREATING"),
        (
            "file_systems",
            [{"Lifecycle": "AVAILABLE", "LustreConfiguration": {"MountName": "zyxwvuts"}}],
            "FsxPath",
            "set it to /zyxwvuts/latents",
        ),
        ("links", [], "FsxPath", "/latents shows nothing"),
        ("routes", [{"Routes": [{"DestinationCidrBlock": "10.42.0.0/16"}]}], "account.subnets", "InternetAccess=true"),
    ],
)
def test_what_the_account_lacks_is_named(
    settings: Settings,
    definition: dict[str, Any],
    target: Target,
    account: dict[str, Any],
    key: str,
    value: Any,
    parameter: str,
    text: str,
) -> None:
    account[key] = value
    findings = {finding.parameter: str(finding) for finding in preflight(settings, definition, {}, target)}
    assert text in findings.get(parameter, ""), findings


@pytest.mark.usefixtures("account")
@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("Bucket", "another-bucket", "there is no bucket"),
        ("PretrainedModel", f"s3://{STACK['BucketName']}/nothing", "has no vae/config.json"),
        ("TrainingImage", f"{ACCOUNT}.dkr.ecr.us-east-1.amazonaws.com/sd-pipeline-training:v9", "is not in ECR"),
        ("TrainingImage", f"{ACCOUNT}.dkr.ecr.us-east-1.amazonaws.com/nothing:v9", "is not in ECR"),
    ],
)
def test_what_the_account_does_not_have_is_named(
    settings: Settings, definition: dict[str, Any], target: Target, name: str, value: str, text: str
) -> None:
    findings = {finding.parameter: finding for finding in preflight(settings, definition, {name: value}, target)}
    assert text in findings[name].problem


def test_trials_at_once_count_against_the_quota(
    settings: Settings, definition: dict[str, Any], target: Target, account: dict[str, Any]
) -> None:
    account["quotas"] = {"ml.p4d.24xlarge for training job usage": 1.0}
    findings = {f.parameter: f for f in preflight(settings, definition, {"TuneInstanceCount": "2"}, target)}
    assert "Tune needs 2" in findings["TuneInstanceCount"].problem


def test_a_warm_pool_quota_of_0_stands_in_nobodys_way(
    settings: Settings, definition: dict[str, Any], target: Target, account: dict[str, Any]
) -> None:
    account["quotas"] = {"ml.p4d.24xlarge for training warm pool usage": 0.0}
    assert preflight(settings, definition, {}, target) == []


def test_what_may_not_be_asked_is_said_and_does_not_block(
    settings: Settings,
    definition: dict[str, Any],
    target: Target,
    account: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refused(self: Told, ServiceCode: str) -> Any:  # noqa: N803
        error = {"Code": "AccessDeniedException", "Message": "not authorized"}
        raise ClientError({"Error": error}, "ListServiceQuotas")  # type: ignore[typeddict-item]

    monkeypatch.setattr(Told, "paginate", refused)
    findings = preflight(settings, definition, {}, target)
    assert [(finding.parameter, finding.blocking) for finding in findings] == [("TrainingInstanceType", False)]
    assert "ListServiceQuotas: not authorized" in findings[0].problem


def test_the_account_is_not_asked_while_the_offline_part_finds_something(
    settings: Settings, definition: dict[str, Any]
) -> None:
    nowhere = Target("us-east-1", "http://127.0.0.1:9")
    started_s = time.monotonic()
    findings = preflight(settings, definition, {"MinClipScore": "15"}, nowhere)
    assert [finding.parameter for finding in findings] == ["MinClipScore"]
    assert time.monotonic() - started_s < 2


@pytest.mark.parametrize("address", ["urls/", "urls/b.parquet", "csv/", "tsv/b.tsv.gz"])
def test_the_url_tables_columns_are_read_from_s3_itself(address: str) -> None:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        target = Target("us-east-1", "http://{}:{}".format(*server.get_host_and_port()))
        s3 = target.client("s3")
        s3.create_bucket(Bucket="tables")
        table = io.BytesIO()
        pq.write_table(pa.table({"url": ["http://a"], "caption": ["a cat"]}), table)
        s3.put_object(Bucket="tables", Key="urls/b.parquet", Body=table.getvalue())
        s3.put_object(Bucket="tables", Key="urls/a.txt", Body=b"no table")
        s3.put_object(Bucket="tables", Key="csv/b.csv", Body=b'url,caption\nhttp://a,"a cat"\n')
        s3.put_object(Bucket="tables", Key="tsv/b.tsv.gz", Body=gzip.compress(b"url\tcaption\n"))
        assert account_checks.url_table_columns(target, f"s3://tables/{address}") == ["url", "caption"]
        assert account_checks.url_table_columns(target, "s3://tables/nothing/") == []
    finally:
        server.stop()
