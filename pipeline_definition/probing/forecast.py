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
SECONDS_PER_HOUR: Final = 3600.0


@dataclass(frozen=True)
class ProbeForecast:
    """What some jobs of a probe will cost in a region, on demand."""

    jobs: Sequence[ProbeJob]
    region: str

    @property
    def seconds(self) -> float:
        """Return how long a job is billed for, its start included."""
        return load_rates().assumed.job_start_s + MEASURING_S

    def usd(self, job: ProbeJob, seconds: float) -> float | None:
        """Return what a job costs that takes so long; None where a price is not known."""
        return job.hourly_usd(self.region) * seconds / SECONDS_PER_HOUR or None

    def total(self, seconds: float) -> str:
        """Return the dollars of all jobs, and which have no price."""
        known = [usd for job in self.jobs if (usd := self.usd(job, seconds)) is not None]
        missing = [job.label for job in self.jobs if self.usd(job, seconds) is None]
        return usd_text(sum(known)) + (f" without {', '.join(missing)}, whose price is not known" if missing else "")

    def rows(self) -> list[tuple[str, ...]]:
        """Return the cells of a table: steps, hosts, minutes, dollars."""
        minutes = f"{self.seconds / 60:.0f}"
        return [(job.label, job.what, minutes, usd_text(self.usd(job, self.seconds))) for job in self.jobs]

    def __str__(self) -> str:
        """Return the forecast in one line."""
        return (
            f"forecast: {self.seconds / 60:.0f} minutes and {self.total(self.seconds)}; at most "
            f"{self.total(LIMIT_S)}, for every job is stopped after {LIMIT_S / 60:.0f} minutes"
        )
