"""Parts count when their record says so, and a manifest never describes parts that are being replaced."""

import json
from pathlib import Path

import pytest

from steps.artifact import Artifact, PartRecord, differences, publish
from steps.data.storage import Storage

IDENTITY = {"image_size_px": 64, "table": "a" * 64}


class Record(PartRecord):
    name: str
    bytes: int

    @property
    def part(self) -> tuple[str, int]:
        return self.name, self.bytes


def make(artifact: Artifact, name: str, content: bytes = b"part") -> Record:
    artifact.storage.write(name, content)
    record = Record(plan_digest=artifact.parts_digest, name=name, bytes=len(content))
    record.write(artifact.storage)
    return record


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    artifact = Artifact(str(tmp_path / "prefix"), IDENTITY)
    artifact.begin()
    return artifact


def other(artifact: Artifact, **changes: object) -> Artifact:
    return Artifact(artifact.storage.uri, IDENTITY | changes)


def finish(artifact: Artifact) -> None:
    artifact.storage.write("manifest.json", json.dumps({"plan_digest": artifact.digest}).encode())


def test_whole_parts_of_this_identity_are_finished(artifact: Artifact) -> None:
    record = make(artifact, "00000.tar")
    assert artifact.finished(Record) == {"00000.tar": record}
    assert other(artifact, image_size_px=32).finished(Record) == {}


@pytest.mark.parametrize("damage", ["cut", "gone", "no record", "no JSON", "another part's record"])
def test_a_part_that_is_not_whole_or_not_recorded_does_not_exist(artifact: Artifact, damage: str) -> None:
    record, storage = make(artifact, "00000.tar"), artifact.storage
    if damage == "cut":
        storage.write("00000.tar", b"cut")
    elif damage == "gone":
        storage.delete("00000.tar")
    elif damage == "no record":
        storage.delete("00000.verified.json")
    elif damage == "no JSON":
        storage.write("00000.verified.json", b"{")
    else:
        stray = record.model_copy(update={"name": "00001.tar"})
        storage.write("00001.tar", b"part")
        storage.write("00000.verified.json", stray.model_dump_json().encode())
    assert artifact.finished(Record) == {}


def test_a_manifest_is_withdrawn_where_it_is_another_artifacts(artifact: Artifact) -> None:
    finish(artifact)
    other(artifact).begin()
    assert artifact.published() is not None
    other(artifact, image_size_px=32).begin()
    assert artifact.storage.size("manifest.json") is None


def test_what_decides_the_extent_leaves_the_parts(artifact: Artifact) -> None:
    record = make(artifact, "00000.tar")
    finish(artifact)
    longer = Artifact(artifact.storage.uri, IDENTITY, extent=(2,))
    assert longer.finished(Record) == {"00000.tar": record}
    assert longer.published() is None


def test_published_means_every_file(artifact: Artifact) -> None:
    finish(artifact)
    assert artifact.published("index.json") is None
    artifact.storage.write("index.json", b"{}")
    assert set(artifact.published("index.json") or ()) == {"manifest.json", "index.json"}
    artifact.storage.write("manifest.json", b"[]")
    assert artifact.published() is None


def test_another_artifact_names_the_setting_that_makes_it_another(
    artifact: Artifact, capsys: pytest.CaptureFixture[str]
) -> None:
    other(artifact).begin()
    assert capsys.readouterr().out == ""
    other(artifact, image_size_px=32).begin()
    assert "made anew, since image_size_px was 64 and is 32\n" in capsys.readouterr().out


def test_an_artifact_of_the_first_release_recorded_no_settings_and_is_told_all_the_same(
    artifact: Artifact, capsys: pytest.CaptureFixture[str]
) -> None:
    finish(artifact)
    artifact.storage.delete("identity.json")
    other(artifact, image_size_px=32).begin()
    assert "holds another artifact; parts that do not fit are made anew" in capsys.readouterr().out


def test_the_manifest_comes_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    replace = Path.replace
    monkeypatch.setattr(Path, "replace", lambda self, to: (order.append(to.name), replace(self, to)))
    publish(tmp_path / "out", {"manifest.json": b"m", "plan.json": b"p", "index.json": b"i"})
    assert order[-1] == "manifest.json"
    assert Storage(str(tmp_path / "out")).sizes() == {"manifest.json": 1, "plan.json": 1, "index.json": 1}


def test_differences_name_settings_and_cut_what_is_long() -> None:
    before = {"settings": {"learning_rate": 1e-4}, "latents": "a" * 64, "unet": {"layers": 2, "heads": 8}}
    now = {"settings": {"learning_rate": 2e-4, "sharpen": True}, "latents": "b" * 64, "unet": {"layers": 3, "heads": 8}}
    assert differences(before, now) == (
        "learning_rate was 0.0001 and is 0.0002, latents was aaaaaaaaaaaa... and is bbbbbbbbbbbb..., "
        "unet.layers was 2 and is 3, sharpen was not set and is true"
    )
