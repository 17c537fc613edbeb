"""The run's page: one HTML file that shows what happened, made from the run's artifacts alone.

Reads labels.yaml: what the pages call the figures.
"""

from typing import Any, Final

from params.tables import table_beside

LABELS: Final[dict[str, Any]] = table_beside(__file__, "labels")
