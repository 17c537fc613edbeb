"""One run's artifacts as they lie in runs/<execution id>/artifacts/.

Reads that folder; writes nothing. Every artifact is optional: a run that failed half-way leaves what it got to.
"""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

from params import layout
from pipeline_definition.errors import UsageError

EXECUTION_FILE: Final = "execution.json"
DEFINITION_FILE: Final = "definition.json"
PARAMETERS_FILE: Final = "parameters.json"
SHARDS_MANIFEST_FILE: Final = "shards_manifest.json"
LATENTS_MANIFEST_FILE: Final = "latents_manifest.json"
WENT_IN_FILE: Final = "went_in.json"
WENT_IN_DIR: Final = "went_in"
TUNING_FILE: Final = "tuning.json"
MODEL_PACKAGE_FILE: Final = "model_package.json"
FORECAST_FILE: Final = "forecast.json"
VERSIONS_FILE: Final = "versions.json"
PHASE_FOLDER: Final = "phase-{number}"

Json = Mapping[str, Any]


@dataclass(frozen=True)
class Artifacts:
    folder: Path
    execution: Json = field(default_factory=dict)
    """Status, failure reason, steps with their times, jobs and last log lines, and what could not be fetched."""
    definition: Json = field(default_factory=dict)
    parameters: Json = field(default_factory=dict)
    """Pipeline parameters: name to the value used."""
    defaults: Json = field(default_factory=dict)
    """The definition's, of them."""
    shards_manifest: Json | None = None
    went_in: tuple[tuple[Path, str, str], ...] = ()
    """Some of the pictures that Download stored, small, each with its caption and the one that Recaption wrote."""
    latents_manifest: Json | None = None
    tuning: Json | None = None
    """Objective and trials, each with hyperparameters, objective, seconds and hosts."""
    training_log: tuple[Json, ...] = ()
    lineage: Json | None = None
    metrics: Json | None = None
    contact_sheet: Path | None = None
    samples: tuple[Path, ...] = ()
    """Some of the generated pictures."""
    captions: tuple[Json, ...] = ()
    """Of the generated pictures: caption, seed and file."""
    model_package: Json | None = None
    forecast: Json | None = None
    """What the run was forecast to cost, and at which prices."""
    versions: Json | None = None
    """The versions of the model package group before this run's, with their metrics."""
    former_phases: tuple["Artifacts", ...] = ()
    """Latents manifest, training log and lineage of the phases before the last one, which the fields above describe."""

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read a folder that `collect` wrote, without a connection."""
        if not folder.is_dir():
            raise UsageError(f"{folder}: no such folder; collect the run's artifacts first")
        parameters = _object(folder, PARAMETERS_FILE) or {}
        sheet, log = folder / layout.CONTACT_SHEET_FILE, folder / layout.TRAINING_LOG_FILE
        went_in, pictures = _object(folder, WENT_IN_FILE) or {}, sorted((folder / WENT_IN_DIR).glob("*.jpg"))
        found = (went_in.get(key) for key in ("captions", "written"))
        captions, written = (texts if isinstance(texts, dict) else {} for texts in found)
        return cls(
            folder=folder,
            execution=_object(folder, EXECUTION_FILE) or {},
            definition=_object(folder, DEFINITION_FILE) or {},
            parameters=parameters.get("values", {}),
            defaults=parameters.get("defaults", {}),
            shards_manifest=_object(folder, SHARDS_MANIFEST_FILE),
            went_in=tuple((one, str(captions.get(one.name, "")), str(written.get(one.name, ""))) for one in pictures),
            latents_manifest=_object(folder, LATENTS_MANIFEST_FILE),
            tuning=_object(folder, TUNING_FILE),
            training_log=parsed_lines(log.read_bytes()) if log.is_file() else (),
            lineage=_object(folder, layout.LINEAGE_FILE),
            metrics=_object(folder, layout.METRICS_FILE),
            contact_sheet=sheet if sheet.is_file() else None,
            samples=tuple(sorted((folder / layout.SAMPLES_DIR).glob("*.png"))),
            captions=tuple((_object(folder, layout.SAMPLES_FILE) or {}).get("samples", ())),
            model_package=_object(folder, MODEL_PACKAGE_FILE),
            forecast=_object(folder, FORECAST_FILE),
            versions=_object(folder, VERSIONS_FILE),
            former_phases=tuple(cls.load(former) for former in sorted(folder.glob(PHASE_FOLDER.format(number="*")))),
        )


def parsed(content: bytes, name: str) -> Any:
    """Return what JSON says. Raises UsageError that names the artifact."""
    try:
        return json.loads(content)
    except ValueError as error:
        raise UsageError(f"{name}: not valid JSON: {error}") from None


def parsed_lines(content: bytes, most: int | None = None) -> tuple[Json, ...]:
    """Return the objects of JSON lines, of the first `most` lines alone; a line that was cut off is left out."""
    entries = []
    for line in content.decode("utf-8-sig", errors="replace").split("\n")[:most]:
        with suppress(ValueError, RecursionError):
            entries.append(json.loads(line))
    return tuple(entry for entry in entries if isinstance(entry, dict))


def _object(folder: Path, name: str) -> Json | None:
    path = folder / name
    if not path.is_file():
        return None
    value = parsed(path.read_bytes(), str(path))
    if not isinstance(value, dict):
        raise UsageError(f"{path}: an object was expected, not {type(value).__name__}")
    return value
