"""The compiled graphs lie beside the checkpoints, come from Tune's trials, and nothing is read without `compile`."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from torch._inductor.runtime.cache_dir_utils import cache_dir

from params.programs import TrainArguments
from steps.container import Container
from steps.training.model import CACHE_VARIABLE, keep_compiled
from tests.steps.data import s3_server

URI = f"s3://{s3_server.BUCKET}/checkpoints/shapes/run-1"
COMPILED = TrainArguments(compile=True, checkpoints_uri=URI)
GRAPHS = {"fxgraph/ab/key/graph": b"1", "triton/0/HASH/kernel.cubin": b"2"}


@pytest.fixture
def s3() -> Iterator[s3_server.S3]:
    with s3_server.serving() as server:
        yield server


@pytest.fixture
def container(tmp_path: Path) -> Container:
    return Container({"SAGEMAKER_BASE_DIR": str(tmp_path)})


def put(server: s3_server.S3) -> None:
    for name, content in GRAPHS.items():
        key = f"checkpoints/shapes/tuning/compiled/{name}"
        server.client.put_object(Bucket=s3_server.BUCKET, Key=key, Body=content)


def found(container: Container) -> dict[str, bytes]:
    folder = container.checkpoint_dir / "compiled"
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_train_begins_with_what_the_trials_compiled(s3: s3_server.S3, container: Container) -> None:
    put(s3)
    keep_compiled(COMPILED, container, {})
    assert found(container) == GRAPHS


def test_a_restarted_job_keeps_its_own(s3: s3_server.S3, container: Container) -> None:
    put(s3)
    (container.checkpoint_dir / "compiled").mkdir(parents=True)
    keep_compiled(COMPILED, container, {})
    assert found(container) == {}


def test_without_trials_that_left_any_it_compiles_anew_and_a_refusal_is_said(
    s3: s3_server.S3, container: Container, capsys: pytest.CaptureFixture[str]
) -> None:
    keep_compiled(COMPILED, container, {})
    assert capsys.readouterr().out == ""
    elsewhere = COMPILED.model_copy(update={"checkpoints_uri": "s3://no-such-bucket-anywhere/checkpoints/shapes/run-1"})
    keep_compiled(elsewhere, container, {})
    assert found(container) == {}


def test_torch_compiles_into_the_checkpoints_volume(container: Container, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(CACHE_VARIABLE, raising=False)
    keep_compiled(TrainArguments(compile=True), container)
    assert Path(cache_dir()) == container.checkpoint_dir / "compiled"


def test_a_folder_of_the_operators_own_wins(container: Container) -> None:
    environment = {CACHE_VARIABLE: "/elsewhere"}
    keep_compiled(TrainArguments(compile=True), container, environment)
    assert environment == {CACHE_VARIABLE: "/elsewhere"}


def test_without_compile_nothing_is_read(s3: s3_server.S3, container: Container) -> None:
    put(s3)
    environment: dict[str, str] = {}
    keep_compiled(COMPILED.model_copy(update={"compile": False}), container, environment)
    assert (environment, found(container)) == ({}, {})
