"""What `run-local --data` and `data upload` say and write before anything runs."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pytest
from moto import mock_aws
from PIL import Image
from typer.testing import CliRunner

from params.settings import load_settings
from pipeline_definition.cli import app
from pipeline_definition.commands.options import CommandContext
from pipeline_definition.commands.own_set import own_set
from pipeline_definition.commands.run_local import _prompt_of
from pipeline_definition.errors import UsageError
from pipeline_definition.session import Target

LOCAL = Path("params/local.yaml")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    pick = np.random.default_rng(0)
    for number in range(30):
        Image.fromarray(pick.integers(0, 255, (96, 96, 3), np.uint8)).save(folder / f"{number}.jpg")
        (folder / f"{number}.txt").write_text(f"photo {number}")
    return folder


def test_a_folder_becomes_a_parameter_set_and_a_page_to_look_at(photos: Path, tmp_path: Path, capsys: Any) -> None:
    own = own_set(LOCAL, str(photos), None, tmp_path / "state", tmp_path / "runs", None)
    name = own.settings.data.name
    assert own.params == tmp_path / "state" / "sets" / f"{name}.yaml" and load_settings(own.params) == own.settings
    settings = own.settings
    assert settings.data.url_table == f"s3://{settings.account.bucket}/own/{name}/" and len(own.files) == 60
    assert settings.download.source == "pictures" and settings.evaluate.samples >= 8
    assert settings.registry.group == f"own-{name}"
    page = (tmp_path / "runs" / f"{name}.html").read_text()
    assert "photo 7" in page and "<img" in page
    said = capsys.readouterr().out
    assert "30 pictures; usable: 30 with 30 different captions (latin 30)" in said and "64 px" in said


def test_the_sizes_of_a_set_of_ones_own_stay_and_have_to_hold_out_enough(photos: Path, tmp_path: Path) -> None:
    tiny = tmp_path / "tiny.yaml"
    text = Path("tests/end_to_end/tiny.yaml").read_text()
    tiny.write_text(text)
    with pytest.raises(UsageError, match=r"tiny\.yaml: encode\.heldout_fraction 0\.15 holds out . of 30 pictures; 0\."):
        own_set(tiny, str(photos), None, tmp_path / "state", tmp_path / "runs", None)
    tiny.write_text(text.replace("heldout_fraction: 0.15", "heldout_fraction: 0.5"))
    own = own_set(tiny, str(photos), None, tmp_path / "state", tmp_path / "runs", None).settings
    assert (own.train, own.evaluate) == (load_settings(tiny).train, load_settings(tiny).evaluate)
    assert own.data.name.startswith("photos-") and own.download.source == "pictures"


def test_a_pretrained_folder_takes_the_place_of_the_small_models(photos: Path, tmp_path: Path) -> None:
    models = Path("shapes/models/pretrained")
    own = own_set(LOCAL, str(photos), models, tmp_path / "state", tmp_path / "runs", None).settings
    assert own.local is not None and own.local.pretrained_dir == str(models.resolve())
    assert own.data.pretrained_uri.startswith(f"s3://{own.account.bucket}/pretrained/pretrained-")
    assert own.data.evaluator_uri == load_settings(LOCAL).data.evaluator_uri
    assert own.encode.resolution_px == 64


@pytest.mark.parametrize(
    ("captions", "prompt"),
    [
        (["a cat", "a dog"], "a cat"),
        (["", "-rf", "two\nlines", "\x1b[2J", "a dog; rm"], "a dog; rm"),
        ([], "a picture"),
    ],
)
def test_the_prompt_at_the_end_is_the_first_drawn_caption_that_is_plain_text(captions: list[str], prompt: str) -> None:
    assert _prompt_of([{"caption": caption} for caption in captions]) == prompt


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    monkeypatch.setattr(CommandContext, "target", Target("us-east-1"))
    with mock_aws():
        client = boto3.client("s3", region_name="us-east-1")
        client.create_bucket(Bucket="sd-pipeline-local")
        monkeypatch.chdir(tmp_path)
        yield client


def test_data_upload_looks_uploads_and_ends_with_the_command_that_starts(s3: Any, photos: Path) -> None:
    command = ["data", "upload", str(photos), "--local", "--name", "mine"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert "s3://sd-pipeline-local/own/mine/: 60 sent, 0 copied, 0 there" in done.output
    assert "--set UrlTable=s3://sd-pipeline-local/own/mine/ --set DatasetName=mine" in done.output
    assert "these data need pictures" in done.output and Path("mine.html").is_file()
    (photos / "0.txt").write_text("another caption")
    assert "another content lies there" in CliRunner().invoke(app, command).output
    s3.put_object(Bucket="sd-pipeline-local", Key="own/mine/31.jpg", Body=b"")
    again = CliRunner().invoke(app, [*command, "--replace"]).output
    assert "1 sent, 0 copied, 59 there" in again and "1 objects there are not in" in again
    body = io.BytesIO(s3.get_object(Bucket="sd-pipeline-local", Key="own/mine/0.txt")["Body"].read())
    assert body.getvalue() == b"another caption"


def test_pretrained_upload_sends_models_and_evaluator_to_their_addresses_and_no_pickle(s3: Any) -> None:
    for name in ("vae/config.json", "vae/old.bin", "training_log.jsonl", "evaluator/clip/config.json", ".cache/x.json"):
        path = Path("sd", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    done = CliRunner().invoke(app, ["pretrained", "upload", "sd", "--local"])
    assert done.exit_code == 0, done.output
    keys = [item["Key"] for item in s3.list_objects_v2(Bucket="sd-pipeline-local")["Contents"]]
    # An exported folder's checksums.json lists its training log, too.
    shapes = ["pretrained/shapes/training_log.jsonl", "pretrained/shapes/vae/config.json"]
    assert keys == ["pretrained/evaluator/clip/config.json", *shapes]
