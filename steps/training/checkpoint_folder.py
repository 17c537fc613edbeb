"""Checkpoints of one training: written under a partial name, synced to disk, renamed; verified before use.

    <folder>/samples-000000012800/{weights,average,optimizer}.safetensors, training_log.jsonl, manifest.json
    <folder>/finished.json      at the end of the training: which job finished it
    <folder>/spent.json         dollars so far (steps.training.stop)
    <folder>/lock               held by the rank that writes
    <folder>-2/...              the second training with the same settings, and so on

Reads and writes only these. The manifest holds the sha256 of every file; where a file does not match, the checkpoint
before is used.
"""

import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import ConfigDict, Field, ValidationError
from safetensors.torch import load_file, save_file
from torch import Tensor

from params.arguments import describe
from params.files import PARTIAL, file_digest, sync, write_text
from params.layout import MANIFEST_FILE, TRAINING_LOG_FILE
from params.model import Model
from steps.errors import StepError
from steps.training.stop import SPENT_FILE

FORMAT_VERSION: Final = 1
FINISHED_FILE: Final = "finished.json"
_NAME: Final = re.compile(r"samples-(\d{12})")


class CheckpointManifest(Model):
    """Describes a checkpoint; written last."""

    format_version: int = FORMAT_VERSION
    """Of the files."""
    seen_samples: int
    """Samples that the weights have learnt from."""
    global_batch_size: int
    """Samples for one optimizer step."""
    world_size: int
    """Ranks that trained; any number can resume."""
    skipped_steps: int
    """Optimizer steps skipped because the loss or the gradient was not finite."""
    files: dict[str, str] = Field(default_factory=dict)
    """sha256 of each file."""


class Finished(Model):
    """How a training ended."""

    model_config = ConfigDict(populate_by_name=True)

    job_name: str
    """Which job finished it."""
    seen_samples: int
    """Samples that the weights have learnt from."""
    settings: dict[str, Any] = Field(default_factory=dict, validation_alias="limits")
    """The job's settings that do not affect the weights. Release 0.1.0 wrote only its cost limits, as `limits`."""


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint, read and verified; its tensors by file and name, in CPU memory."""

    manifest: CheckpointManifest
    tensors: dict[str, dict[str, Tensor]]
    log: str


class CheckpointFolder:
    def __init__(self, folder: Path, keep: int, shorter: "CheckpointFolder | None" = None) -> None:
        """Keep the newest `keep` in `folder`; until it has one, the newest is that of `shorter`, which it continues."""
        self.folder, self._keep, self._shorter = folder, keep, shorter

    def newest(self) -> Checkpoint | None:
        """Return the newest intact checkpoint, or None; remove damaged ones. Raises StepError if all are damaged."""
        damaged: dict[Path, str] = {}
        for path in reversed(self.paths()):
            try:
                checkpoint = _read(path)
            except (OSError, ValueError) as error:
                damaged[path] = f"{path.name}: {error}"
                print(f"checkpoint {path} is damaged ({error}); going back to the one before", flush=True)
                continue
            for newer in damaged:
                shutil.rmtree(newer, ignore_errors=True)
            return checkpoint
        if damaged:
            raise StepError(
                f"{self.folder}: no checkpoint can be read ({'; '.join(damaged.values())}); restore one, or remove the "
                "folder to begin from scratch"
            )
        return self._shorter.newest() if self._shorter else None

    def write(self, manifest: CheckpointManifest, tensors: Mapping[str, Mapping[str, Tensor]], log: str) -> Path:
        """Write a checkpoint, remove the oldest beyond the number to keep, and return the new folder."""
        path = self.folder / f"samples-{manifest.seen_samples:012d}"
        partial = path.with_name(path.name + PARTIAL)
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        for group, values in tensors.items():
            save_file(dict(values), partial / f"{group}.safetensors")
        (partial / TRAINING_LOG_FILE).write_text(log, encoding="utf-8")
        files = {file.name: file_digest(file) for file in sorted(partial.iterdir())}
        write_text(partial / MANIFEST_FILE, manifest.model_copy(update={"files": files}).model_dump_json(indent=2))
        for file in (*partial.iterdir(), partial):
            sync(file)
        shutil.rmtree(path, ignore_errors=True)
        partial.rename(path)
        sync(self.folder)
        for old in self.paths()[: -self._keep]:
            shutil.rmtree(old, ignore_errors=True)
        return path

    def finished(self) -> Finished | None:
        """Return how this training ended, or None while it is unfinished."""
        try:
            return Finished.model_validate_json((self.folder / FINISHED_FILE).read_bytes())
        except (OSError, ValidationError):
            return None

    def mark_finished(self, job_name: str, seen_samples: int, settings: Mapping[str, Any]) -> None:
        finished = Finished(job_name=job_name, seen_samples=seen_samples, settings=dict(settings))
        write_text(self.folder / FINISHED_FILE, finished.model_dump_json(), synced=True)

    def newest_generation(self) -> "CheckpointFolder":
        """Return the folder of the newest training with these settings: this one, or one that began afresh later."""
        return CheckpointFolder(self._generation(max(self._later(), default=1)), self._keep)

    def begin_afresh(self) -> "CheckpointFolder":
        """Remove earlier checkpoints; return a new training's folder: another, for S3 brings removed ones back."""
        number = max(self._later(), default=1) + 1
        afresh = CheckpointFolder(self._generation(number), self._keep)
        afresh.folder.mkdir(parents=True)
        for earlier in range(1, number):
            CheckpointFolder(self._generation(earlier), self._keep).clear()
        return afresh

    def going_on_from(self, shorter: "CheckpointFolder") -> "CheckpointFolder":
        """Return this folder as the continuation of a shorter training, whose cost it takes over."""
        spent = shorter.folder / SPENT_FILE
        if spent.is_file() and not (self.folder / SPENT_FILE).is_file():
            shutil.copy(spent, self.folder)
        return CheckpointFolder(self.folder, self._keep, shorter)

    def neighbours(self) -> "Iterator[CheckpointFolder]":
        """Yield the newest folder of every other training on the same volume that has checkpoints."""
        for path in sorted(self.folder.parent.iterdir()):
            if path.is_dir() and path.name.isalnum() and path != self.folder:
                newest = CheckpointFolder(path, self._keep).newest_generation()
                if newest.paths():
                    yield newest

    def clear(self) -> None:
        """Remove every checkpoint, and the files about all of them."""
        for name in (FINISHED_FILE, SPENT_FILE):
            (self.folder / name).unlink(missing_ok=True)
        for path in self.paths():
            shutil.rmtree(path)

    def _later(self) -> Iterator[int]:
        """Yield the numbers of the trainings that began afresh after the first one: 2, 3 and so on."""
        for path in self.folder.parent.glob(f"{self.folder.name}-*"):
            number = path.name.removeprefix(f"{self.folder.name}-")
            if number.isdecimal():
                yield int(number)

    def _generation(self, number: int) -> Path:
        return self.folder if number == 1 else self.folder.with_name(f"{self.folder.name}-{number}")

    def remove_partial(self) -> None:
        """Remove the unfinished files of a killed process."""
        for path in self.folder.glob(f"*{PARTIAL}"):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)

    def paths(self) -> list[Path]:
        """Return the checkpoints' folders, the oldest first."""
        return sorted(path for path in self.folder.glob("samples-*") if path.is_dir() and _NAME.fullmatch(path.name))


def _read(path: Path) -> Checkpoint:
    try:
        manifest = CheckpointManifest.model_validate_json((path / MANIFEST_FILE).read_bytes())
    except ValidationError as error:
        raise ValueError(describe(error)[:200]) from None
    if manifest.format_version != FORMAT_VERSION:
        raise ValueError(f"format {manifest.format_version}, this code reads {FORMAT_VERSION}")
    for name, digest in manifest.files.items():
        if file_digest(path / name) != digest:
            raise ValueError(f"{name} does not match its sha256")
    tensors = {Path(name).stem: load_file(path / name) for name in manifest.files if name.endswith(".safetensors")}
    return Checkpoint(manifest, tensors, (path / TRAINING_LOG_FILE).read_text(encoding="utf-8"))
