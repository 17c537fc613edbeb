"""Reads the small JSON files of a model folder, which may be anybody's: an object, or an error that names the file."""

import json
from pathlib import Path
from typing import Any

from steps.errors import StepError


def read_object(path: Path) -> dict[str, Any]:
    """Return what a JSON file says. Raises StepError where it cannot be read, or holds no JSON object."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise StepError(f"{path}: cannot be read ({error}); the folder must be as diffusers saves it") from None
    except (ValueError, RecursionError) as error:
        raise StepError(f"{path}: damaged: {error}") from None
    if not isinstance(value, dict):
        raise StepError(f"{path}: damaged: not a JSON object")
    return value
