"""Digests of a folder of models. Imports no torch: whoever only plans or compares starts without it.

Reads a folder and, where there is one, its checksums.json, which write_checksums() leaves in it.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from params.families import INDEX_FILE, VAE, Family, FamilyError, family_of
from params.files import file_digest
from params.layout import CHECKSUMS_FILE
from steps.errors import StepError
from steps.model.json_object import read_object


def folder_digest(folder: Path) -> str:
    """Return a sha256 over the names and contents of all files below a folder."""
    return _combined(_file_digests(folder))


def folder_family(folder: Path) -> Family:
    """Return the family of a folder as diffusers saves it. Raises StepError where it is of no known one."""
    index = folder / INDEX_FILE
    try:
        return family_of(read_object(index) if index.is_file() else None)
    except FamilyError as error:
        raise StepError(f"{folder}: {error}") from None


def encoder_digests(folder: Path, family: Family) -> dict[str, str]:
    """Return the digests of what made latents, as their manifest names them: VAE, tokenizers and text encoders."""
    return {
        "encoder_digest": folder_digest(folder / VAE),
        "tokenizer_digest": _parts_digest(folder, tuple(family.text)),
        "text_encoder_digest": _parts_digest(folder, tuple(family.text.values())),
    }


def _parts_digest(folder: Path, parts: Sequence[str]) -> str:
    """Return the digest of the only part, or that of all which are there."""
    if len(parts) == 1:
        return folder_digest(folder / parts[0])
    return _combined({part: folder_digest(folder / part) for part in parts if (folder / part).is_dir()})


def write_checksums(folder: Path) -> None:
    """Write the sha256 of every file below a folder, by name, into its checksums.json: the last file to be written."""
    digests = {name: digest for name, digest in _file_digests(folder).items() if name != CHECKSUMS_FILE}
    (folder / CHECKSUMS_FILE).write_text(json.dumps(digests, indent=2) + "\n", encoding="utf-8")


def checked_digest(folder: Path) -> str:
    """Return folder_digest(); StepError names the first file that checksums.json, where there is one, contradicts."""
    digests = _file_digests(folder)
    listed = folder / CHECKSUMS_FILE
    for name, expected in (read_object(listed) if listed.is_file() else {}).items():
        if name not in digests:
            raise StepError(f"{folder}/{name}: missing, but {CHECKSUMS_FILE} lists it; take another copy of the model")
        if digests[name] != expected:
            raise StepError(f"{folder}/{name}: damaged: not what {CHECKSUMS_FILE} says; take another copy of the model")
    return _combined(digests)


def _file_digests(folder: Path) -> dict[str, str]:
    if not folder.is_dir():
        raise StepError(f"{folder}: no such folder")
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return {name: file_digest(folder / name) for name in names}


def _combined(digests: Mapping[str, str]) -> str:
    digest = hashlib.sha256()
    for name, content in digests.items():
        digest.update(f"{name}\0{content}\n".encode())
    return digest.hexdigest()
