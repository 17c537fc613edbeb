"""What a local run puts into the bucket, and what it leaves alone there."""

import io
from collections.abc import Iterator
from pathlib import Path

import boto3
import pyarrow.parquet as pq
import pytest
from moto import mock_aws

from params.settings import Settings
from pipeline_definition.commands.options import ROOT
from pipeline_definition.errors import OperatorError
from pipeline_definition.runs.laptop import Laptop
from pipeline_definition.session import Target

OWN = b"url,caption\nhttp://127.0.0.1:9/1.jpg,mine\n"


class World:
    """A state folder and a bucket."""

    def __init__(self, folder: Path) -> None:
        self.s3, self.folder = boto3.client("s3", region_name="us-east-1"), folder
        for name in ("pretrained", "evaluator"):
            (folder / name).mkdir()
            (folder / name / "config.json").write_text(name)
        self.s3.create_bucket(Bucket="bucket")

    def run(self, **data: str) -> None:
        settings = Settings.model_validate(
            {
                "account": {"bucket": "bucket"},
                "data": {
                    "url_table": "s3://bucket/mine/",
                    "pretrained_uri": "s3://bucket/p",
                    "evaluator_uri": "s3://bucket/e",
                }
                | data,
                "local": {
                    "rows": 16,
                    "pretrained_dir": str(self.folder / "pretrained"),
                    "evaluator_dir": str(self.folder / "evaluator"),
                },
            }
        )
        with Laptop(settings, Target("us-east-1"), self.folder / "world", ROOT).ready():
            pass

    def put(self, key: str, body: bytes) -> None:
        self.s3.put_object(Bucket="bucket", Key=key, Body=body)

    def objects(self, prefix: str) -> dict[str, bytes]:
        listed = self.s3.list_objects_v2(Bucket="bucket", Prefix=prefix).get("Contents", [])
        return {item["Key"]: self.s3.get_object(Bucket="bucket", Key=item["Key"])["Body"].read() for item in listed}


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr(Laptop, "_make_file_system", lambda _: "fs-1")
    with mock_aws():
        yield World(tmp_path)


@pytest.mark.parametrize("name", ["mine.csv", "own.parquet", "urls.parquet"])
def test_a_table_that_is_there_is_neither_joined_nor_overwritten_by_the_shapes(world: World, name: str) -> None:
    world.put(f"mine/{name}", OWN)
    world.run()
    world.run()
    assert world.objects("mine/") == {f"mine/{name}": OWN}


def test_a_table_of_a_single_address_counts_too(world: World) -> None:
    world.put("mine/mine.csv", OWN)
    world.run(url_table="s3://bucket/mine/mine.csv")
    assert world.objects("mine/") == {"mine/mine.csv": OWN}


def test_shapes_are_drawn_where_nothing_lies_and_drawn_anew_by_the_next_run(world: World) -> None:
    world.put("mine/", b"")  # what the console makes of a new folder
    for _ in range(2):
        world.run()
        assert pq.read_table(io.BytesIO(world.objects("mine/u")["mine/urls.parquet"])).num_rows == 16


def test_shapes_of_an_earlier_run_make_way_for_a_table_that_comes_later(world: World) -> None:
    world.run()
    world.put("mine/mine.csv", OWN)
    world.run()
    assert world.objects("mine/") == {"mine/mine.csv": OWN}


def test_a_table_in_the_place_of_an_earlier_runs_shapes_is_used(world: World) -> None:
    world.run()
    world.put("mine/urls.parquet", OWN)
    world.run()
    assert world.objects("mine/") == {"mine/urls.parquet": OWN}


def test_shapes_of_release_0_1_0_bear_no_mark_and_are_known_by_their_bytes(world: World) -> None:
    world.run()
    body = world.objects("mine/")["mine/urls.parquet"]
    world.put("mine/urls.parquet", body)
    world.put("mine/mine.csv", OWN)
    world.run()
    assert world.objects("mine/") == {"mine/mine.csv": OWN}


def test_models_follow_an_upgrade_and_models_of_ones_own_stay(world: World) -> None:
    world.put("e/config.json", b"my own evaluator")
    world.run()
    (world.folder / "pretrained" / "config.json").rename(world.folder / "pretrained" / "other.json")
    world.run()
    assert world.objects("p/") == {"p/other.json": b"pretrained"}
    assert world.objects("e/") == {"e/config.json": b"my own evaluator"}


def test_pictures_that_are_asked_for_and_missing_are_named(world: World) -> None:
    with pytest.raises(OperatorError, match=r"nothing lies under s3://bucket/mine/; `run-local --data FOLDER`"):
        settings = Settings.model_validate(
            {
                "account": {"bucket": "bucket"},
                "data": {"url_table": "s3://bucket/mine/"},
                "download": {"source": "pictures"},
            }
        )
        Laptop(settings, Target("us-east-1"), world.folder, ROOT)._draws_shapes()
