"""A definition that was built before is not built again: the SageMaker SDK takes seconds to import.

Reads and writes <cache>/sd-pipeline/definitions/<digest>.json, <cache> being XDG_CACHE_HOME or ~/.cache. The digest is
over the settings, every file that the definition is made of, and the SDK's version: building is a function of these
three. Prices are in the settings. The folder can be deleted at any time.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from params.files import write_text
from params.settings import Settings

MAX_KEPT: Final = 64
_ROOT: Final = Path(__file__).resolve().parents[2]


def definition_of(settings: Settings) -> str:
    """Return what `build_definition` returns, byte for byte."""
    path = cache_folder() / f"{digest_of(settings)}.json"
    with suppress(OSError, ValueError):
        text = path.read_text(encoding="utf-8")
        json.loads(text)
        return text
    from pipeline_definition.definition.pipeline import build_definition

    text = build_definition(settings)
    # A home that cannot be written to costs the seconds again, nothing else.
    with suppress(OSError):
        write_text(path, text)
        newest = sorted(path.parent.glob("*.json"), key=lambda kept: kept.stat().st_mtime, reverse=True)
        for old in newest[MAX_KEPT:]:
            old.unlink(missing_ok=True)
    return text


def cache_folder() -> Path:
    """Return where definitions are kept."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "sd-pipeline" / "definitions"


def digest_of(settings: Settings) -> str:
    """Return a digest of everything that decides a definition."""
    digest = hashlib.sha256(settings.model_dump_json().encode())
    digest.update(f"{importlib.metadata.version('sagemaker')} {platform.python_version()}".encode())
    for path in _sources():
        digest.update(path.read_bytes())
    return digest.hexdigest()[:32]


def _sources() -> Iterator[Path]:
    """Yield the files of the definition and of what it may import, data files too; a contract in setup.cfg holds it."""
    for room in ("params", "pipeline_definition/definition"):
        yield from sorted(path for path in (_ROOT / room).rglob("*") if path.suffix != ".pyc" and path.is_file())
    yield from (_ROOT / "pipeline_definition" / name for name in ("__init__.py", "session.py"))
