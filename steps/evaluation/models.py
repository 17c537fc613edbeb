"""The models that an evaluation draws with: the trained, the generic pretrained and the approved one.

Reads input_dir("model")/model.tar.gz, input_dir("pretrained") and, straight from its address, the approved model's
archive; unpacks onto the job's volume, because the root file system of an instance is small.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from params import layout
from params.families import INDEX_FILE
from params.programs import EvaluateArguments
from steps.container import Container
from steps.data.storage import Storage
from steps.errors import StepError
from steps.evaluation.generation import APPROVED, PRETRAINED, TRAINED, ModelSource
from steps.model.archive import unpack_model
from steps.model.digest import checked_digest
from steps.model.families import denoiser_of
from steps.model.json_object import read_object

UNPACKED_DIR: Final = "/opt/ml/processing/models"


def check_models(container: Container, arguments: EvaluateArguments) -> None:
    """Raise StepError if the gate needs the generic pretrained model and it has no weights."""
    folder = container.input_dir(layout.PRETRAINED_CHANNEL)
    is_judged = arguments.comparison_samples and denoiser_of(folder).has_weights(folder)
    if arguments.require_pretrained and not is_judged:
        raise StepError(
            f"{folder}: no {INDEX_FILE} with a denoiser's weights, and the gate compares with the generic "
            "pretrained model; add them, set comparison_samples above 0, or set gate.max_fid_above_pretrained and "
            "gate.max_clip_score_below_pretrained to null"
        )


def find_models(container: Container, arguments: EvaluateArguments) -> dict[str, ModelSource]:
    """Return the models by name, unpacked (remove_models() deletes that) and checked. StepError: missing or damaged."""
    unpacked = container.path(UNPACKED_DIR)
    unpack_model(container.input_dir(layout.MODEL) / layout.MODEL_ARCHIVE, unpacked / TRAINED)
    folders, pretrained = {TRAINED: unpacked / TRAINED}, container.input_dir(layout.PRETRAINED_CHANNEL)
    if arguments.comparison_samples:
        if arguments.approved_model != layout.NO_MODEL:
            _fetch_model(arguments.approved_model, unpacked)
            folders[APPROVED] = unpacked / APPROVED
        if denoiser_of(pretrained).has_weights(pretrained):
            folders[PRETRAINED] = pretrained
    return {name: ModelSource(folder, checked_digest(folder)) for name, folder in folders.items()}


def model_record(folder: Path) -> dict[str, Any]:
    """Return the lineage that training left in the model's folder: settings, code, data, throughput.

    What the registry reads is always present, `unknown` if the model came without it. Raises StepError if the file is
    not a JSON object.
    """
    path = folder / layout.LINEAGE_FILE
    record = read_object(path) if path.is_file() else {}
    known = {name: value for name, value in record.items() if value is not None}
    return {layout.MODEL_CODE_DIGEST: layout.UNKNOWN, layout.MODEL_IMAGES_PER_S: layout.UNKNOWN, **known}


def remove_models(container: Container) -> None:
    """Delete what find_models() unpacked."""
    shutil.rmtree(container.path(UNPACKED_DIR), ignore_errors=True)


def digests(sources: Mapping[str, ModelSource]) -> dict[str, str]:
    """Return each model's digest under the key that metrics.json gives it: the trained one's is `model`."""
    return {layout.MODEL if name == TRAINED else name: source.digest for name, source in sources.items()}


def _fetch_model(address: str, folder: Path) -> None:
    prefix, _, name = address.rpartition("/")
    archive = folder / f"{APPROVED}-{layout.MODEL_ARCHIVE}"
    try:
        with Storage(prefix).open(name) as source, archive.open("wb") as target:
            shutil.copyfileobj(source, target)
    except OSError as error:
        raise StepError(f"approved_model: {address} cannot be read: {str(error) or type(error).__name__}") from None
    unpack_model(archive, folder / APPROVED)
    archive.unlink()
