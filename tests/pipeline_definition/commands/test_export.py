"""A model is exported by its path, its address or its name in the registry."""

import io
import json
import tarfile
from pathlib import Path

import pytest

from pipeline_definition.commands.programs import export_model
from pipeline_definition.errors import OperatorError
from pipeline_definition.models.registry import PackageGroup
from tests.pipeline_definition.fake_aws import FakeTarget, fake_s3
from tests.pipeline_definition.models.test_approved_model import ARCHIVE, answer
from tests.steps.serving.tiny_pipeline import write_pipeline


def archived(folder: Path) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as tar:
        tar.add(folder, arcname=".")
    return content.getvalue()


def test_an_archive_in_s3_becomes_a_folder_that_is_whole(tmp_path: Path) -> None:
    archive = archived(write_pipeline(tmp_path / "model"))
    target = FakeTarget(answers={"s3": fake_s3({ARCHIVE.format(1): archive})})
    export_model(lambda: target, ARCHIVE.format(1), tmp_path / "new" / "out", None, half=False, check=False)
    index = json.loads((tmp_path / "new" / "out" / "model_index.json").read_text())
    assert index["_class_name"] == "StableDiffusionPipeline"
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["out"], "the download is gone"


@pytest.mark.parametrize("address", ["s3://bucket/folder/", "s3://bucket/missing/model.tar.gz"])
def test_an_address_that_holds_no_archive_is_named(tmp_path: Path, address: str) -> None:
    target = FakeTarget(answers={"s3": fake_s3({})})
    with pytest.raises(OperatorError, match=address):
        export_model(lambda: target, address, tmp_path / "out", None, half=False, check=False)


def test_the_programs_own_reason_is_told(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    with pytest.raises(OperatorError, match=r"model_index.json: cannot be read"):
        export_model(FakeTarget, str(tmp_path / "model"), tmp_path / "out", None, half=False, check=False)


def test_a_package_knows_the_address_of_its_model() -> None:
    describe = {"describe_model_package": lambda ModelPackageName: answer(2, "Approved")}  # noqa: N803
    shown = PackageGroup(FakeTarget(answers={"sagemaker": describe}), "sd-pipeline").show("arn:aws:x/2")
    assert shown.model_uri == ARCHIVE.format(2)
