"""Tables that stand beside the code that reads them: names, words and figures are no code."""

from pathlib import Path
from typing import Any

import yaml


def table_beside(module_file: str, name: str = "") -> Any:
    """Return the content of NAME.yaml in a module's folder, or of the file that has the module's own name."""
    module = Path(module_file)
    return yaml.safe_load(module.with_name(f"{name or module.stem}.yaml").read_text(encoding="utf-8"))
