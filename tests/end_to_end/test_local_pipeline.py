import io
import json
import pickle
import re
import socket
import subprocess
import time

import psutil
import pytest
import torch
from PIL import Image

from tests.end_to_end.conftest import COMMAND, SECRETS, TINY, clean_environment
from tests.end_to_end.remains import PRESIGNED, remains, search
from tests.pipeline_definition.pages.chromium import browser, find_browser
from tests.pipeline_definition.prompting.playground_page import PlaygroundPage
from tests.processes import outlive

pytestmark = pytest.mark.timeout(400)

STEPS = (
    "Download",
    "Encode",
    "Tune",
    "Train",
    "Evaluate",
    "QualityGate",
    "Register",
    "CreateModel",
    "EndpointConfig",
    "Endpoint",
)


def test_every_step_succeeds(first_run):
    assert first_run["status"] == "Succeeded"
    assert {name: step["status"] for name, step in first_run["steps"].items()} == dict.fromkeys(STEPS, "Succeeded")
    assert all(step["seconds"] >= 0 for step in first_run["steps"].values())


def test_summary_holds_the_five_metrics(first_run):
    assert set(first_run["metrics"]) == {
        "fid",
        "fid_untrained",
        "clip_score",
        "clip_score_untrained",
        "clip_score_real",
    }
    assert all(isinstance(value, float) for value in first_run["metrics"].values())


def test_real_pictures_score_best(first_run):
    metrics = first_run["metrics"]
    assert metrics["clip_score_real"] > max(metrics["clip_score"], metrics["clip_score_untrained"])


def test_package_waits_for_approval_with_its_numbers(pipeline, first_run):
    package = pipeline.client("sagemaker").describe_model_package(ModelPackageName=first_run["model_package_arn"])
    assert package["ModelApprovalStatus"] == "PendingManualApproval"
    assert float(package["CustomerMetadataProperties"]["fid"]) == pytest.approx(first_run["metrics"]["fid"])
    assert package["ModelMetrics"]["ModelQuality"]["Statistics"]["S3Uri"].endswith("/metrics.json")


def test_endpoint_draws_a_png_for_a_prompt(pipeline, first_run):
    response = pipeline.client("sagemaker-runtime").invoke_endpoint(
        EndpointName=first_run["endpoint_name"],
        ContentType="application/json",
        Accept="image/png",
        Body=json.dumps({"prompt": "a small red circle at the top on a blue background", "seed": 1}),
    )
    picture = Image.open(io.BytesIO(response["Body"].read()))
    assert (picture.format, picture.size) == ("PNG", (64, 64))


@pytest.mark.browser
@pytest.mark.skipif(find_browser() is None, reason="no Chromium or Chrome is installed")
def test_the_playground_shows_the_endpoints_own_picture(pipeline, first_run, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    caption, url = "a small red circle at the top on a blue background", f"http://127.0.0.1:{port}/"
    command = [COMMAND, "playground", "--local", "--params", str(TINY), "--state", str(pipeline.state)]
    process = subprocess.Popen([*command, "--port", str(port)], env=clean_environment(), stdout=subprocess.DEVNULL)
    try:
        wait_for_port(port, process)
        with browser(find_browser() or "", tmp_path / "profile") as tab:
            page = PlaygroundPage(tab, url)
            page.open()
            page.type("Prompt", caption)
            page.click("#draw")
            (shown,) = page.pictures("#pictures")
            seed = int(re.search(r"seed (\d+)", page.text("#pictures figcaption")).group(1))
            assert all(address.startswith((url, "blob:")) for address in tab.seen().requests)
    finally:
        process.terminate()
        process.wait(30)
    response = pipeline.client("sagemaker-runtime").invoke_endpoint(
        EndpointName=first_run["endpoint_name"],
        ContentType="application/json",
        Accept="image/png",
        Body=json.dumps({"prompt": caption, "seed": seed}),
    )
    # Files differ: each is signed at its own time.
    assert pixels(shown) == pixels(response["Body"].read())


def pixels(file):
    with Image.open(io.BytesIO(file)) as image:
        return image.convert("RGB").tobytes()


def wait_for_port(port, process, timeout_s=120):
    deadline_s = time.monotonic() + timeout_s
    while time.monotonic() < deadline_s and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise AssertionError(f"the playground did not start: {process.poll()}")


def test_ledger_accounts_for_every_row(pipeline, first_run, first_id):
    manifest = json.loads((pipeline.runs / first_id / "artifacts" / "shards_manifest.json").read_text())
    ledger = manifest["ledger"]
    assert ledger["rows"] == 400
    assert ledger["kept"] + sum(ledger["failed"].values()) + sum(ledger["filtered"].values()) == ledger["rows"]
    assert sum(shard["samples"] for shard in manifest["shards"]) == ledger["kept"]
    # The web's faults, each under its own cause.
    assert {"http_404", "timeout", "disallowed"} <= set(ledger["failed"])
    assert {"duplicate_picture", "too_small"} <= set(ledger["filtered"])


def test_training_ran_on_two_hosts_through_the_file_system(pipeline, first_run, first_id):
    job = pipeline.training_job(first_id)
    assert job["ResourceConfig"]["InstanceCount"] == 2
    source = job["InputDataConfig"][0]["DataSource"]["FileSystemDataSource"]
    assert source["FileSystemType"] == "FSxLustre"
    assert {line["world_size"] for line in pipeline.training_log(first_id) if "world_size" in line} <= {2}


def test_final_metrics_were_read_from_the_log(pipeline, first_run, first_id):
    found = {metric["MetricName"]: metric["Value"] for metric in pipeline.training_job(first_id)["FinalMetricDataList"]}
    assert found["seen_samples"] == 640
    assert found["validation_loss"] > 0


def test_report_and_contact_sheet_are_there(pipeline, first_run, first_id):
    report = (pipeline.runs / first_id / "report.html").read_text()
    for name in ("fid", "fid_untrained", "clip_score_real"):
        value = first_run["metrics"][name]
        assert any(f"{value:.{digits}f}" in report for digits in (1, 2, 3)), name
    with Image.open(pipeline.runs / first_id / "artifacts" / "contact_sheet.png") as sheet:
        assert min(sheet.size) > 200


def test_output_ends_with_what_a_person_needs(first_run):
    for needed in (
        "gate passed",
        "report.html",
        "contact_sheet.png",
        first_run["model_package_arn"],
        "sd-pipeline prompt",
    ):
        assert needed in first_run["output"].replace("\n", " ") or needed in first_run["output"], needed


@pytest.fixture(scope="module")
def findings(pipeline, first_run):
    """Search what the first run left once, for everything: it is gigabytes."""
    planted = re.compile(b"|".join([re.escape(value.encode()) for value in SECRETS.values()] + [PRESIGNED.pattern]))
    found = search(remains(pipeline.state, pipeline.runs), planted)
    return {**found, "printed": planted.findall(first_run["output"].encode())}


def test_no_secret_of_the_operators_is_left_behind(findings):
    assert findings["secrets"] == []
    assert findings["printed"] == []
    assert findings["searched"] > 1000


def test_no_pickle_is_left_behind(findings, tmp_path):
    torch.save({"weights": torch.zeros(2)}, tmp_path / "weights.bin")
    (tmp_path / "plain").write_bytes(pickle.dumps({"a": 1}))
    assert len(search(remains(tmp_path), re.compile(b"never"))["pickles"]) == 2, "it would be found"
    assert findings["pickles"] == []


def test_missed_gate_fails_registers_nothing_and_says_why(pipeline, first_run):
    packages = pipeline.client("sagemaker").list_model_packages(ModelPackageGroupName="sd-pipeline-tiny")
    done = pipeline.run("--set", "MaxFid=0")
    summary = pipeline.summary()
    assert done.returncode == 1
    assert summary["status"] == "Failed"
    assert summary["steps"]["GateFailed"]["status"] == "Failed"
    assert "must be at most MaxFid = 0" in summary["failure_reason"]
    assert not {"Register", "CreateModel", "EndpointConfig", "Endpoint"} & set(summary["steps"])
    assert summary["model_package_arn"] is None
    assert summary["endpoint_name"] is None
    after = pipeline.client("sagemaker").list_model_packages(ModelPackageGroupName="sd-pipeline-tiny")
    assert len(after["ModelPackageSummaryList"]) == len(packages["ModelPackageSummaryList"])
    # Nothing before the gate depends on the threshold.
    assert all(summary["steps"][name]["cached"] for name in ("Download", "Encode", "Tune", "Train", "Evaluate"))


def test_one_host_trains_along_the_same_loss_curve_as_two(pipeline, first_run, first_id):
    # The gate stops it: this needs no other endpoint.
    done = pipeline.run("--set", "TrainingInstanceCount=1", "--set", "MaxFid=0")
    summary = pipeline.summary()
    assert "GateFailed" in summary["steps"], done.stdout[-4000:] + done.stderr[-2000:]
    one_id = summary["execution_arn"].rsplit("/", 1)[-1]
    assert not summary["steps"]["Train"]["cached"]
    assert summary["steps"]["Tune"]["cached"]
    two, one = pipeline.training_log(first_id), pipeline.training_log(one_id)
    losses = [[line["training_loss"] for line in log if "training_loss" in line] for log in (two, one)]
    assert len(losses[0]) == 20
    assert losses[1] == pytest.approx(losses[0], rel=2e-4)


def test_killed_in_train_and_resumed_ends_with_the_same_weights(pipeline, first_run, first_id):
    # A control plane of its own, so that killing the command kills everything it started.
    unbroken = pipeline.weights(first_id)
    pipeline.down()
    running = subprocess.Popen(
        pipeline.command("--set", "TrainingRun=killed"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=clean_environment(),
    )
    wait_for_checkpoint(pipeline, running)
    family = psutil.Process(running.pid).children(recursive=True)
    assert len(family) > 3
    running.kill()
    running.wait()
    assert not outlive(family, 20), "a killed run leaves nothing behind"
    killed_id = (pipeline.runs / "latest").readlink().name
    assert killed_id != first_id

    done = pipeline.run("--resume", killed_id)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    resumed = pipeline.weights(killed_id)
    assert resumed.keys() == unbroken.keys()
    assert all(torch.equal(resumed[name], unbroken[name]) for name in unbroken)


def wait_for_checkpoint(pipeline, running, limit_s=150.0):
    """Wait until a checkpoint of the running training has reached S3."""
    deadline_s = time.monotonic() + limit_s
    while time.monotonic() < deadline_s:
        assert running.poll() is None, "the run ended before it could be killed"
        if any(pipeline.state.glob("s3/*/checkpoints/shapes/killed/*/samples-*/manifest.json")):
            return
        time.sleep(0.05)
    pytest.fail(f"no checkpoint within {limit_s:.0f} s")
