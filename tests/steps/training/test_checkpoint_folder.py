"""A checkpoint counts when it is whole."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from steps.errors import StepError
from steps.training.checkpoint_folder import CheckpointFolder, CheckpointManifest, Finished

LOG = '{"seen_samples": 8}\n'


def manifest(seen_samples: int) -> CheckpointManifest:
    return CheckpointManifest(seen_samples=seen_samples, global_batch_size=8, world_size=2, skipped_steps=1)


def tensors(value: float) -> dict[str, dict[str, Tensor]]:
    return {"weights": {"a": torch.full((3,), value), "b": torch.ones(())}, "optimizer": {"step.a": torch.zeros(())}}


@pytest.fixture
def folder(tmp_path: Path) -> CheckpointFolder:
    return CheckpointFolder(tmp_path / "training", keep=2)


def names(folder: CheckpointFolder) -> list[str]:
    return sorted(path.name for path in folder.folder.iterdir())


def test_what_was_written_is_read(folder: CheckpointFolder) -> None:
    assert folder.newest() is None
    folder.write(manifest(8), tensors(0.5), LOG)
    found = folder.newest()
    assert found is not None
    assert found.manifest.model_copy(update={"files": {}}) == manifest(8)
    assert found.log == LOG
    assert found.tensors["weights"]["a"].tolist() == [0.5] * 3
    assert found.tensors["optimizer"]["step.a"].shape == ()


def test_the_newest_are_kept(folder: CheckpointFolder) -> None:
    for seen in (8, 16, 1000, 24):
        folder.write(manifest(seen), tensors(seen), LOG)
    assert names(folder) == ["samples-000000000024", "samples-000000001000"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: (path / "weights.safetensors").write_bytes(b"\0" * (path / "weights.safetensors").stat().st_size),
        lambda path: (path / "optimizer.safetensors").write_bytes((path / "optimizer.safetensors").read_bytes()[:-1]),
        lambda path: (path / "weights.safetensors").unlink(),
        lambda path: (path / "manifest.json").unlink(),
        lambda path: (path / "manifest.json").write_text("{"),
        lambda path: (path / "training_log.jsonl").write_text(""),
    ],
)
def test_a_damaged_checkpoint_gives_way_to_the_one_before(
    folder: CheckpointFolder, capsys: pytest.CaptureFixture[str], damage: object
) -> None:
    folder.write(manifest(8), tensors(8), LOG)
    newest = folder.write(manifest(16), tensors(16), LOG)
    damage(newest)  # type: ignore[operator]
    found = folder.newest()
    assert found is not None
    assert found.manifest.seen_samples == 8
    assert f"checkpoint {newest} is damaged" in capsys.readouterr().out
    assert names(folder) == ["samples-000000000008"], "it is not taken for the newest again"


def test_with_no_whole_checkpoint_training_does_not_begin_again_in_silence(folder: CheckpointFolder) -> None:
    path = folder.write(manifest(8), tensors(8), LOG)
    (path / "weights.safetensors").unlink()
    with pytest.raises(StepError, match=r"no checkpoint can be read.*remove the folder to begin from scratch"):
        folder.newest()
    assert path.exists(), "nothing is thrown away"


def test_a_half_written_checkpoint_does_not_exist(folder: CheckpointFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.write(manifest(8), tensors(8), LOG)

    def power_cut(self: Path, target: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "rename", power_cut)
        folder.write(manifest(16), tensors(16), LOG)
    found = folder.newest()
    assert found is not None
    assert found.manifest.seen_samples == 8
    folder.remove_partial()
    assert names(folder) == ["samples-000000000008"]


def test_the_job_that_finished_is_known(folder: CheckpointFolder) -> None:
    assert folder.finished() is None
    folder.write(manifest(8), tensors(8), LOG)
    folder.mark_finished("job-1", 8, {"budget_usd": 5.0})
    assert folder.finished() == Finished(job_name="job-1", seen_samples=8, settings={"budget_usd": 5.0})
    again = folder.begin_afresh()
    assert (again.finished(), again.newest()) == (None, None)
    assert (folder.finished(), folder.newest()) == (None, None), "its room is needed"
    assert folder.newest_generation().folder == again.folder
    assert folder.begin_afresh().folder.name == f"{folder.folder.name}-3"
