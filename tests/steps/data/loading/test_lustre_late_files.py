"""Files of the latents that the file system has not imported yet."""

import shutil
import threading
import time
from pathlib import Path

import pytest

from params.layout import LATENTS_FORMER_INDEX_FILE, LATENTS_INDEX_FILE, MANIFEST_FILE
from steps.data.latents.latents_index import index_bytes
from steps.data.latents.latents_manifest import LatentsIndex, LatentsManifest
from steps.data.loading import lustre as module
from steps.data.loading.lustre import late_files, wait_for_files
from steps.errors import StepError
from tests.steps.training.tiny_model import write_latents, write_pretrained


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("latents")
    latents = write_latents(folder / "latents", write_pretrained(folder / "pretrained"))
    former = latents / LATENTS_FORMER_INDEX_FILE
    index = LatentsIndex.model_validate_json(former.read_bytes())
    (latents / LATENTS_INDEX_FILE).write_bytes(index_bytes(index.shards))
    former.unlink()
    return latents


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "latents"))


def files(folder: Path) -> list[str]:
    manifest = LatentsManifest.model_validate_json((folder / MANIFEST_FILE).read_bytes())
    return [MANIFEST_FILE, LATENTS_INDEX_FILE, *(shard.name for shard in manifest.shards)]


def test_a_whole_folder_is_not_waited_for(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert late_files(folder) == []
    wait_for_files(folder, 60)
    assert capsys.readouterr().out == ""


def test_each_file_that_the_manifest_names_is_waited_for(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(module, "POLL_S", 0.02)
    for name in files(folder):
        late = folder / name
        late.rename(tmp_path / "later")
        threading.Timer(0.2, (tmp_path / "later").rename, [late]).start()
        wait_for_files(folder, 60)
        first, last = capsys.readouterr().out.splitlines()
        assert "waiting 60 s more for the file system to import" in first and name in first
        assert "has every file" in last and late.exists()


def test_a_file_of_another_size_is_late_too(folder: Path) -> None:
    """What Encode wrote anew under the same name is imported as late as what is new."""
    name = files(folder)[2]
    size = (folder / name).stat().st_size
    with (folder / name).open("ab") as file:
        file.write(b"old")
    assert late_files(folder) == [f"{name} ({size + 3:,} of {size:,} bytes)"]


@pytest.mark.parametrize("place", [0, 1, 2])
def test_what_never_comes_is_named_with_the_place_to_look_at(
    folder: Path, place: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "POLL_S", 0.05)
    name = files(folder)[place]
    (folder / name).unlink()
    began_s = time.monotonic()
    with pytest.raises(StepError) as error:
        wait_for_files(folder, 0.3)
    assert 0.3 <= time.monotonic() - began_s < 10
    for words in (name, "after 0 s", "never finished", "data repository association", "latents_wait_s"):
        assert words in str(error.value)


def test_neither_a_limit_of_0_nor_a_channel_that_is_not_there_waits_for_anything(tmp_path: Path) -> None:
    wait_for_files(tmp_path, 0)
    wait_for_files(tmp_path / "nothing", 60)


def test_a_damaged_manifest_is_left_to_whoever_opens_it(folder: Path) -> None:
    (folder / MANIFEST_FILE).write_text("{")
    assert late_files(folder) == []
