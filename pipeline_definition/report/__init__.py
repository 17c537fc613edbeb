"""The run's page: one HTML file that shows what happened, made from the run's artifacts alone.

Reads labels.yaml: what the pages call the figures.
"""

from pathlib import Path
from typing import Any, Final

import yaml

LABELS: Final[dict[str, Any]] = yaml.safe_load(Path(__file__).with_name("labels.yaml").read_text(encoding="utf-8"))
