"""How much longer or shorter the jobs of finished runs took than forecast: the next forecast is corrected by it.

Reads and writes corrections.yaml, one dated entry for each program, instance type and model; the newest counts.

    sd-pipeline cost actual latest --correct
"""

from collections.abc import Iterable
from datetime import date
from pathlib import Path

import yaml
from pydantic import Field, TypeAdapter, ValidationError

from params.arguments import describe
from params.files import read_text, write_text
from params.model import Model
from pipeline_definition.cost.training import CostError

CORRECTIONS_FILE = Path(__file__).with_name("corrections.yaml")
# A job that ended long before its forecast, or long after it, did not do what was forecast.
PLAUSIBLE = (0.05, 20.0)

Work = tuple[str, str, str]
"""Program, instance type and model."""


class Correction(Model):
    """What one run showed."""

    program: str
    """download, recaption, encode, train or evaluate."""
    instance_type: str
    model: str
    """As data.model names it."""
    hours_factor: float = Field(ge=PLAUSIBLE[0], le=PLAUSIBLE[1])
    """Hours that it took over hours that the uncorrected forecast said."""
    run: str
    date: date

    @property
    def work(self) -> Work:
        return self.program, self.instance_type, self.model


_LIST = TypeAdapter(list[Correction])


def load_corrections(path: Path = CORRECTIONS_FILE) -> dict[Work, Correction]:
    """Read the file; none where there is no file yet. Raises CostError that names the file and the key."""
    if not path.exists():
        return {}
    try:
        return {one.work: one for one in _LIST.validate_python(yaml.safe_load(read_text(path, CostError)) or [])}
    except (yaml.YAMLError, ValidationError) as error:
        reason = describe(error) if isinstance(error, ValidationError) else " ".join(str(error).split())
        raise CostError(f"{path}: {reason}") from None


def write_corrections(found: Iterable[Correction], path: Path = CORRECTIONS_FILE) -> None:
    """Put what a run showed in the place of what older runs showed of the same work."""
    by_work = load_corrections(path) | {one.work: one for one in found}
    entries = [one.model_dump(mode="json") for one in by_work.values()]
    write_text(path, yaml.safe_dump(entries, sort_keys=False, width=120, allow_unicode=True))
