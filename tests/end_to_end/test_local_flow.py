"""The transformer's whole pipeline; killed in Train on two hosts and resumed, it ends as an unbroken one-host run."""

import io
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import torch
import yaml
from PIL import Image

from tests.end_to_end.conftest import TINY, LocalPipeline, clean_environment
from tests.end_to_end.test_local_pipeline import STEPS, wait_for_checkpoint
from tests.processes import outlive

pytestmark = pytest.mark.timeout(400)


@pytest.fixture(name="flow")
def flow_fixture(tmp_path: Path) -> Iterator[LocalPipeline]:
    values, local = (yaml.safe_load(file.read_text()) for file in (TINY, Path("params/local_flow.yaml")))
    values["data"]["pretrained_uri"] = "s3://sd-pipeline-tiny/pretrained/shapes-flow"
    # One trial, and so few pictures that most of the time is spent starting processes.
    values["tune"] |= {"trials": 1, "parallel_trials": 1}
    values["train"] |= {"prediction_type": "flow", "precision": "float64"}
    few = dict.fromkeys(("samples", "untrained_samples", "comparison_samples", "grid_samples"), 16)
    values["evaluate"] |= {"sampler": "dpm++", "guidance_grid": [3.0], **few}
    values["local"]["pretrained_dir"] = local["local"]["pretrained_dir"]
    params = tmp_path / "tiny_flow.yaml"
    params.write_text(yaml.safe_dump(values))
    pipeline = LocalPipeline(tmp_path / "state", tmp_path / "runs", params)
    yield pipeline
    pipeline.down()


def test_every_step_succeeds_and_its_endpoint_draws(flow: LocalPipeline) -> None:
    done = flow.run()
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert_whole(flow)


def assert_whole(flow: LocalPipeline) -> None:
    assert {name: step["status"] for name, step in flow.summary()["steps"].items()} == dict.fromkeys(STEPS, "Succeeded")
    response = flow.client("sagemaker-runtime").invoke_endpoint(
        EndpointName=flow.summary()["endpoint_name"],
        ContentType="application/json",
        Body=json.dumps({"prompt": "a small red circle at the top on a blue background", "seed": 1}),
    )
    assert Image.open(io.BytesIO(response["Body"].read())).size == (64, 64)


@pytest.mark.chaos
def test_killed_on_two_hosts_it_ends_as_an_unbroken_run_on_one(flow: LocalPipeline) -> None:
    running = subprocess.Popen(
        flow.command("--set", "TrainingRun=killed"),
        **dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL),
        env=clean_environment(),
    )
    wait_for_checkpoint(flow, running)
    family = psutil.Process(running.pid).children(recursive=True)
    running.kill()
    running.wait()
    assert not outlive(family, 20), "a killed run leaves nothing behind"
    killed = (flow.runs / "latest").readlink().name
    done = flow.run("--resume", killed)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert_whole(flow)
    # The gate stops it: one endpoint is enough.
    done = flow.run("--set", "TrainingInstanceCount=1", "--set", "MaxFid=0")
    assert "GateFailed" in flow.summary()["steps"], done.stdout[-4000:] + done.stderr[-2000:]
    assert flow.summary()["steps"]["Tune"]["cached"]
    one = (flow.runs / "latest").readlink().name
    resumed, unbroken = flow.weights(killed, "transformer"), flow.weights(one, "transformer")
    assert resumed.keys() == unbroken.keys()
    for name, tensor in unbroken.items():
        torch.testing.assert_close(resumed[name], tensor, rtol=1e-6, atol=1e-9)
