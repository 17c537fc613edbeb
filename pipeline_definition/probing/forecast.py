"""What a probe will take and cost: its jobs run side by side, each for minutes.

Reads the price file and the assumed start of a job; writes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from pipeline_definition.cost.rates import load_rates
from pipeline_definition.cost.tables import usd_text
from pipeline_definition.probing.jobs import LIMIT_S, ProbeJob

# Driver, names, addresses, 1 GiB of disk, two all-reduces, a read and a write at a dozen addresses, and FSx's import of
# an object, for which the guide names no time: assumed, for none of it was measured on AWS.
MEASURING_S: Final = 180.0


@dataclass(frozen=True)
class ProbeForecast:
    """What some jobs of a probe will cost in a region, on demand."""

    jobs: Sequence[ProbeJob]
    region: str

    @property
    def minutes(self) -> float:
        """Return how long a job is billed for, its start included."""
        return (load_rates().assumed.job_start_s + MEASURING_S) / 60

    def rows(self) -> list[tuple[str, ...]]:
        """Return the cells of a table: steps, hosts, minutes, dollars."""
        usd = self._usd(self.minutes)
        return [(job.label, job.what, f"{self.minutes:.0f}", usd_text(usd[job.label])) for job in self.jobs]

    def __str__(self) -> str:
        """Return the forecast in one line."""
        most = LIMIT_S / 60
        return (
            f"forecast: {self.minutes:.0f} minutes and {self._total(self.minutes)}; at most {self._total(most)}, for "
            f"every job is stopped after {most:.0f} minutes"
        )

    def _total(self, minutes: float) -> str:
        """Return the dollars of all jobs, and which have no price."""
        usd = self._usd(minutes)
        missing = ", ".join(label for label, own in usd.items() if own is None)
        known = usd_text(sum(filter(None, usd.values())))
        return f"{known} without {missing}, whose price is not known" if missing else known

    def _usd(self, minutes: float) -> dict[str, float | None]:
        hourly = {job.label: job.hourly_usd(self.region) for job in self.jobs}
        return {label: usd and usd * minutes / 60 for label, usd in hourly.items()}
