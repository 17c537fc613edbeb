# ruff: noqa: N803 (the names of the API's parameters)

import io
import json
import tarfile
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline_definition.artifacts.archive import REMOVED, read_members, redacted
from pipeline_definition.artifacts.collection import MAX_FILE_BYTES, collect
from pipeline_definition.artifacts.folder import Artifacts
from pipeline_definition.artifacts.jobs import _hosts
from pipeline_definition.cost.prices import load_prices
from pipeline_definition.errors import OperatorError
from pipeline_definition.report.run import job_cost
from pipeline_definition.runs.executions import Execution, ExecutionStep
from tests.pipeline_definition.fake_aws import Answers, FakeTarget, fake_s3, refused

START = datetime(2026, 11, 24, 2, 17, tzinfo=UTC)
ARN = "arn:aws:sagemaker:us-east-1:123456789012"
PRESIGNED = "https://bucket.s3.amazonaws.com/urls.parquet?X-Amz-Credential=AKIAABCDEFGHIJKLMNOP&X-Amz-Signature=4f2a"
DEFINITION = {
    "Version": "2020-12-01",
    "Parameters": [
        {"Name": "UrlTable", "Type": "String", "DefaultValue": "s3://bucket/urls/"},
        {"Name": "MaxFid", "Type": "Float", "DefaultValue": 25.0},
        {"Name": "TrainingSamples", "Type": "Integer", "DefaultValue": 51200},
    ],
    "Steps": [{"Name": "Download", "Type": "Processing", "Arguments": {}}],
}
OUTPUTS = {"download": "shards", "encode": "latents", "evaluate": "evaluation"}


def step(
    name: str, kind: str | None = None, status: str = "Succeeded", seconds: float = 10, **more: Any
) -> ExecutionStep:
    names = {"RegisterModel": f"{ARN}:model-package/group/1"}
    arn = names.get(kind or "", f"{ARN}:job/{name.lower()}-job")
    metadata = {kind: {"Arn": arn}} if kind else {}
    return ExecutionStep(name, status, START, START + timedelta(seconds=seconds), metadata=metadata, **more)


def full_execution(status: str = "Succeeded") -> Execution:
    steps = (
        step("Download", "ProcessingJob"),
        step("Encode", "ProcessingJob"),
        step("Tune", "TuningJob"),
        step("Train", "TrainingJob", seconds=100),
        step("Evaluate", "ProcessingJob"),
        step("QualityGate"),
        step("Register", "RegisterModel"),
    )
    return Execution(f"{ARN}:pipeline/p/execution/abc123", status, "", steps)


def tar_gz(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


LOG = b'{"seen_samples": 64, "training_loss": 0.9}\n{"seen_samples": 128, "training_loss": 0.5}\n{"seen_sam'
OBJECTS = {
    "s3://bucket/shards/manifest.json": b'{"ledger": {"rows": 10, "kept": 9}}',
    "s3://bucket/latents/manifest.json": b'{"counts": {"train": 8, "heldout": 1}}',
    "s3://bucket/model/train-job/output/output.tar.gz": tar_gz(
        {"training_log.jsonl": LOG, "lineage.json": b'{"seen_samples": 128}'}
    ),
    "s3://bucket/evaluation/metrics.json": b'{"metrics": {"fid": {"value": 9.1}}}',
    "s3://bucket/evaluation/contact_sheet.png": b"\x89PNG sheet",
    "s3://bucket/evaluation/samples.json": b'[{"caption": "a red circle", "seed": 0, "file": "samples/000000.png"}]',
    **{f"s3://bucket/evaluation/samples/{i:06d}.png": b"\x89PNG %d" % i for i in range(40)},
}


def processing_job(ProcessingJobName: str) -> dict[str, Any]:
    output = OUTPUTS[ProcessingJobName.removesuffix("-job")]
    uri = {"S3Uri": f"s3://bucket/{output}", "S3UploadMode": "EndOfJob", "LocalPath": "/opt/ml/processing/output"}
    return {
        "ProcessingJobName": ProcessingJobName,
        "ProcessingJobStatus": "Completed",
        "ProcessingStartTime": START,
        "ProcessingEndTime": START + timedelta(seconds=8),
        "ProcessingResources": {"ClusterConfig": {"InstanceType": "ml.c5.large", "InstanceCount": 2}},
        "ProcessingOutputConfig": {"Outputs": [{"OutputName": output, "S3Output": uri}]},
        "Environment": {"HIDDEN": "do-not-keep"},
    }


def training_job(TrainingJobName: str) -> dict[str, Any]:
    return {
        "TrainingJobName": TrainingJobName,
        "TrainingJobStatus": "Completed",
        "TrainingStartTime": START,
        "TrainingEndTime": START + timedelta(seconds=90),
        "BillableTimeInSeconds": 80,
        "ResourceConfig": {"InstanceType": "ml.p4d.24xlarge", "InstanceCount": 4, "VolumeSizeInGB": 1},
        "OutputDataConfig": {"S3OutputPath": "s3://bucket/model/"},
        "FinalMetricDataList": [{"MetricName": "validation_loss", "Value": 0.5, "Timestamp": START}],
    }


def tuning_job(HyperParameterTuningJobName: str) -> dict[str, Any]:
    return {
        "HyperParameterTuningJobName": HyperParameterTuningJobName,
        "HyperParameterTuningJobStatus": "Completed",
        "HyperParameterTuningJobConfig": {
            "Strategy": "Random",
            "HyperParameterTuningJobObjective": {"Type": "Minimize", "MetricName": "validation_loss"},
        },
        "CreationTime": START,
        "HyperParameterTuningEndTime": START + timedelta(seconds=30),
        "BestTrainingJob": {"TrainingJobName": "trial-2"},
    }


def trials(HyperParameterTuningJobName: str, NextToken: str = "", **_: Any) -> dict[str, Any]:
    number = 2 if NextToken else 1
    trial = {
        "TrainingJobName": f"trial-{number}",
        "TrainingJobStatus": "Completed",
        "TunedHyperParameters": {"learning_rate": f"0.00{number}"},
        "FinalHyperParameterTuningJobObjectiveMetric": {"MetricName": "validation_loss", "Value": 1 / number},
    }
    return {"TrainingJobSummaries": [trial], **({} if NextToken else {"NextToken": "more"})}


def model_package(ModelPackageName: str) -> dict[str, Any]:
    return {
        "ModelPackageArn": ModelPackageName,
        "ModelPackageGroupName": "group",
        "ModelPackageVersion": 1,
        "ModelApprovalStatus": "PendingManualApproval",
        "CreationTime": START,
        "CustomerMetadataProperties": {"fid": "9.1"},
    }


def answers(objects: dict[str, bytes] | None = None, **changes: Any) -> dict[str, Answers]:
    sagemaker = {
        "describe_pipeline_definition_for_execution": lambda **_: {"PipelineDefinition": json.dumps(DEFINITION)},
        "list_pipeline_parameters_for_execution": lambda **_: {
            "PipelineParameters": [{"Name": "MaxFid", "Value": "5"}, {"Name": "UrlTable", "Value": PRESIGNED}]
        },
        "describe_processing_job": processing_job,
        "describe_training_job": training_job,
        "describe_hyper_parameter_tuning_job": tuning_job,
        "list_training_jobs_for_hyper_parameter_tuning_job": trials,
        "describe_model_package": model_package,
        **changes,
    }
    logs = {
        "describe_log_streams": lambda **_: {
            "logStreams": [
                {"logStreamName": "train-job/algo-1", "lastEventTimestamp": 1},
                {"logStreamName": "train-job/algo-2", "lastEventTimestamp": 2},
            ]
        },
        "get_log_events": lambda logStreamName, **_: {"events": [{"message": f"{logStreamName}: password=hunter22"}]},
    }
    return {"sagemaker": sagemaker, "s3": fake_s3(OBJECTS if objects is None else objects), "logs": logs}


@pytest.fixture
def collected(tmp_path: Path) -> Artifacts:
    return collect(FakeTarget(answers=answers()), full_execution(), tmp_path / "artifacts")


def test_a_full_run_leaves_every_artifact(collected: Artifacts) -> None:
    assert collected.execution["left_out"] == {}
    assert collected.shards_manifest == {"ledger": {"rows": 10, "kept": 9}}
    assert collected.latents_manifest == {"counts": {"train": 8, "heldout": 1}}
    assert [entry["training_loss"] for entry in collected.training_log] == [0.9, 0.5]
    assert collected.lineage == {"seen_samples": 128}
    assert collected.metrics == {"metrics": {"fid": {"value": 9.1}}}
    assert collected.contact_sheet is not None and collected.contact_sheet.read_bytes() == b"\x89PNG sheet"
    assert collected.captions[0]["caption"] == "a red circle"
    assert collected.model_package is not None and collected.model_package["metadata"] == {"fid": "9.1"}


def test_a_former_phases_files_lie_apart(tmp_path: Path) -> None:
    training = {"Type": "Training", "Arguments": {}}
    definition = {**DEFINITION, "Steps": [{"Name": "Train", **training}, {"Name": "TrainPhase2", **training}]}
    objects = dict(OBJECTS)
    second = tar_gz({"training_log.jsonl": b'{"seen_samples": 7}\n', "lineage.json": b'{"seen_samples": 7}'})
    objects["s3://bucket/model/trainphase2-job/output/output.tar.gz"] = second
    said = {"describe_pipeline_definition_for_execution": lambda **_: {"PipelineDefinition": json.dumps(definition)}}
    steps = (*full_execution().steps, step("TrainPhase2", "TrainingJob"))
    execution = replace(full_execution(), steps=steps)
    artifacts = collect(FakeTarget(answers=answers(objects, **said)), execution, tmp_path)
    assert artifacts.lineage == {"seen_samples": 7}
    assert [former.lineage for former in artifacts.former_phases] == [{"seen_samples": 128}]
    assert [len(former.training_log) for former in artifacts.former_phases] == [2]


def test_the_folder_alone_gives_the_same_artifacts(collected: Artifacts) -> None:
    assert Artifacts.load(collected.folder) == collected


def test_parameters_have_the_types_of_the_definition(collected: Artifacts) -> None:
    assert collected.parameters["MaxFid"] == 5.0
    assert collected.parameters["TrainingSamples"] == 51200
    assert collected.defaults["MaxFid"] == 25.0


def test_steps_keep_their_times_and_jobs(collected: Artifacts) -> None:
    train = next(item for item in collected.execution["steps"] if item["name"] == "Train")
    assert (train["status"], train["seconds"], train["attempts"]) == ("Succeeded", 100.0, 1)
    assert train["job"]["billable_seconds"] == 80
    assert train["job"]["hosts"] == [{"instance_type": "ml.p4d.24xlarge", "instance_count": 4}]
    assert train["job"]["final_metrics"] == {"validation_loss": 0.5}
    gate = next(item for item in collected.execution["steps"] if item["name"] == "QualityGate")
    assert gate["job"] is None


def test_tuning_keeps_every_page_of_trials(collected: Artifacts) -> None:
    assert collected.tuning is not None
    assert collected.tuning["objective"] == {"metric": "validation_loss", "type": "Minimize"}
    assert [trial["objective"] for trial in collected.tuning["trials"]] == [1.0, 0.5]
    assert collected.tuning["trials"][0]["hyperparameters"] == {"learning_rate": "0.001"}
    assert collected.tuning["trials"][0]["billable_seconds"] == 80
    assert collected.tuning["best_trial"] == "trial-2"


def test_the_number_of_samples_is_bounded(collected: Artifacts) -> None:
    assert len(collected.samples) == 24
    assert collected.samples[0].name == "000000.png"


def test_the_log_and_the_lineage_are_also_found_in_the_models_archive(tmp_path: Path) -> None:
    objects = dict(OBJECTS)
    objects["s3://bucket/model/train-job/output/model.tar.gz"] = objects.pop(
        "s3://bucket/model/train-job/output/output.tar.gz"
    )
    artifacts = collect(FakeTarget(answers=answers(objects)), full_execution(), tmp_path)
    assert len(artifacts.training_log) == 2
    assert artifacts.lineage == {"seen_samples": 128}


def test_what_cannot_be_had_is_named_and_the_rest_stays(tmp_path: Path) -> None:
    objects = {uri: content for uri, content in OBJECTS.items() if "metrics" not in uri and "model" not in uri}

    def no_package(ModelPackageName: str) -> dict[str, Any]:
        raise refused("DescribeModelPackage")

    target = FakeTarget(answers=answers(objects, describe_model_package=no_package))
    artifacts = collect(target, full_execution(), tmp_path)
    left_out = artifacts.execution["left_out"]
    assert set(left_out) == {"metrics.json", "training_log.jsonl", "model_package.json"}
    assert "s3://bucket/evaluation/metrics.json" in left_out["metrics.json"]
    assert "not authorized" in left_out["model_package.json"]
    assert artifacts.metrics is None and artifacts.training_log == ()
    assert artifacts.latents_manifest is not None


def test_a_run_of_which_nothing_can_be_had_still_has_its_steps(tmp_path: Path) -> None:
    artifacts = collect(FakeTarget(), full_execution(), tmp_path)
    assert len(artifacts.execution["steps"]) == 7
    assert artifacts.definition == {}


def test_outputs_of_a_step_that_failed_may_be_an_earlier_runs_and_are_not_taken(tmp_path: Path) -> None:
    steps = (step("Download", "ProcessingJob", "Failed", failure_reason="yield 0.2 is below 0.9"),)
    execution = Execution(f"{ARN}:pipeline/p/execution/abc", "Failed", "", steps)
    artifacts = collect(FakeTarget(answers=answers()), execution, tmp_path)
    assert artifacts.shards_manifest is None
    assert artifacts.execution["steps"][0]["failure_reason"] == "yield 0.2 is below 0.9"


def test_a_failed_step_keeps_the_last_lines_of_the_stream_that_was_written_last(tmp_path: Path) -> None:
    execution = Execution(f"{ARN}:pipeline/p/execution/abc", "Failed", "", (step("Train", "TrainingJob", "Failed"),))
    artifacts = collect(FakeTarget(answers=answers()), execution, tmp_path)
    assert artifacts.execution["steps"][0]["log_tail"] == [f"train-job/algo-2: password={REMOVED}"]


def test_no_secret_reaches_the_folder(tmp_path: Path) -> None:
    reason = "could not read https://user:pa55word@host/x with AKIAABCDEFGHIJKLMNOP"
    failed = step("Train", "TrainingJob", "Failed", failure_reason=reason)
    execution = Execution(
        f"{ARN}:pipeline/p/execution/abc", "Failed", reason, (step("Download", "ProcessingJob"), failed)
    )
    collect(FakeTarget(answers=answers()), execution, tmp_path)
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    for secret in (b"AKIAABCDEFGHIJKLMNOP", b"4f2a", b"pa55word", b"hunter22", b"do-not-keep"):
        assert secret not in written


def test_gathered_again_a_file_that_is_gone_stays(tmp_path: Path) -> None:
    collect(FakeTarget(answers=answers()), full_execution(), tmp_path)
    artifacts = collect(FakeTarget(answers=answers({})), full_execution(), tmp_path)
    assert artifacts.metrics == {"metrics": {"fid": {"value": 9.1}}}
    assert "metrics.json" in artifacts.execution["left_out"]


def test_a_file_that_is_too_large_is_left_out(tmp_path: Path) -> None:
    objects = {"s3://bucket/evaluation/contact_sheet.png": bytes(MAX_FILE_BYTES + 1)}
    artifacts = collect(FakeTarget(answers=answers(objects)), full_execution(), tmp_path)
    assert artifacts.contact_sheet is None
    assert f"{MAX_FILE_BYTES + 1:,} bytes" in artifacts.execution["left_out"]["contact_sheet.png"]


def test_loading_names_a_file_that_is_damaged(tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_text("{")
    with pytest.raises(OperatorError, match=r"metrics\.json: not valid JSON"):
        Artifacts.load(tmp_path)


def test_loading_names_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match="no such folder"):
        Artifacts.load(tmp_path / "nowhere")


def test_a_member_that_leads_elsewhere_is_read_by_its_name_and_writes_nothing(tmp_path: Path) -> None:
    archive = tar_gz({"../../../lineage.json": b"{}"})
    assert read_members(io.BytesIO(archive), ("lineage.json",)) == {"lineage.json": b"{}"}
    assert list(tmp_path.iterdir()) == []


def test_a_link_is_passed_over() -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        link = tarfile.TarInfo("lineage.json")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    assert read_members(io.BytesIO(buffer.getvalue()), ("lineage.json",)) == {}


def test_an_archive_that_unpacks_to_too_much_is_refused() -> None:
    archive = tar_gz({"weights": bytes(100_000), "lineage.json": b"{}"})
    with pytest.raises(OperatorError, match="more than 50,000 bytes"):
        read_members(io.BytesIO(archive), ("lineage.json",), max_bytes=50_000)


def test_a_header_made_to_exhaust_the_memory_is_refused() -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", format=tarfile.PAX_FORMAT) as archive:
        member = tarfile.TarInfo("lineage.json")
        member.pax_headers = {"comment": "x" * 3_000_000}
        archive.addfile(member)
    with pytest.raises(OperatorError, match="header"):
        read_members(io.BytesIO(buffer.getvalue()), ("lineage.json",))


# With ids of their own: an archive holds the second in which it was made, and two workers collect in different ones.
@pytest.mark.parametrize(
    "content", [b"", b"no archive", tar_gz({"a": b"b" * 4096})[:-40]], ids=["empty", "no archive", "cut off"]
)
def test_a_damaged_archive_is_an_error_of_one_line(content: bytes) -> None:
    with pytest.raises(OperatorError, match=r"^archive cannot be read: .+$"):
        read_members(io.BytesIO(content), ("lineage.json",))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(json_values)
def test_redaction_is_done_after_once_and_keeps_the_shape(value: Any) -> None:
    once = redacted(value)
    assert redacted(once) == once
    assert type(once) is type(value)
    if isinstance(value, dict):
        assert set(once) == set(value)


@given(st.text(), st.text())
def test_no_access_key_outlives_redaction(before: str, after: str) -> None:
    assert "AKIAABCDEFGHIJKLMNOP" not in redacted(f"{before} AKIAABCDEFGHIJKLMNOP {after}")


@pytest.mark.parametrize(
    "kept",
    [
        "tokenizer_digest=8e02",
        "seen_samples=64 training_loss=0.5",
        "s3://bucket/model/train-job/output/model.tar.gz",
        "https://example.org/picture?size=large&id=7",
    ],
)
def test_redaction_leaves_plain_text_alone(kept: str) -> None:
    assert redacted(kept) == kept


def test_the_hosts_of_a_job_are_those_that_sagemaker_chose_and_whether_they_were_reserved() -> None:
    preferences = [
        {"InstanceType": "ml.p5en.48xlarge", "InstanceCount": 2, "TrainingPlanArns": ["arn:plan"]},
        {"InstanceType": "ml.p5.48xlarge", "InstanceCount": 3},
    ]
    chosen = {"SelectedInstanceType": "ml.p5.48xlarge", "SelectedInstanceCount": 3}
    assert _hosts({"InstancePreferences": preferences, **chosen}) == (
        {"instance_type": "ml.p5.48xlarge", "instance_count": 3},
    )
    first = {"SelectedInstanceType": "ml.p5en.48xlarge", "SelectedInstanceCount": 2}
    (reserved,) = _hosts({"InstancePreferences": preferences, **first})
    (plain,) = _hosts({"InstanceType": "ml.p5en.48xlarge", "InstanceCount": 2, "TrainingPlanArn": "arn:plan"})
    assert reserved == plain == {"instance_type": "ml.p5en.48xlarge", "instance_count": 2, "is_reserved": True}
    job = {"seconds": 3600, "hosts": [reserved]}
    prices = load_prices().by_hosts()
    assert job_cost(job, prices).usd == pytest.approx(2 * 41.612)
    # Before SageMaker has chosen, there are none.
    assert _hosts({"InstancePreferences": preferences}) == ()
