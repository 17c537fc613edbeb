"""What a run costs besides its jobs: FSx for Lustre, S3, and the private network's way out.

Reads a parameter set, a workload and prices; writes nothing.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pipeline_definition.cost.jobs import HOURS_PER_MONTH, Estimator, ForecastLine, same_usd
from pipeline_definition.cost.prices import Prices
from pipeline_definition.cost.training import CostError
from pipeline_definition.infrastructure.template import SMALLEST_GIB, STEP_GIB
from pipeline_definition.jobs.planned import PlannedJob

GIB = 2**30
GB = 1e9
# Lustre slows down when it is nearly full (FSx for Lustre user guide: act at 80 %).
FILLED = 0.8
THROUGHPUTS = (125, 250, 500, 1000)


@dataclass(frozen=True)
class Surroundings:
    """What the definition does not determine about where the jobs run."""

    fsx_gib: int | None = None
    """None: the smallest that holds the latents."""
    fsx_mb_per_s_per_tib: int = 125
    storage_months: float = 1.0


def other_lines(
    estimator: Estimator, jobs: Sequence[PlannedJob], hours: float, around: Surroundings
) -> Iterator[ForecastLine]:
    """Yield what a run of `hours` is billed besides its jobs."""
    if estimator.settings.file_system.kind == "fsx":
        yield _file_system(estimator, hours, around)
    yield from _bucket(estimator, around)
    if any(job.in_network for job in jobs):
        yield from _network(estimator, jobs, hours)


def fsx_gib(latents_bytes: float) -> int:
    """Return the smallest file system that holds the latents at 80 % of its size: 1,200 GiB, or a multiple of 2,400."""
    needed = latents_bytes / FILLED / GIB
    if needed <= SMALLEST_GIB:
        return SMALLEST_GIB
    return STEP_GIB * -int(-needed // STEP_GIB)


def _file_system(estimator: Estimator, hours: float, around: Surroundings) -> ForecastLine:
    tier = around.fsx_mb_per_s_per_tib
    if tier not in THROUGHPUTS:
        raise CostError(f"--fsx-throughput {tier}: FSx for Lustre has {', '.join(map(str, THROUGHPUTS))} MB/s/TiB")
    gib = around.fsx_gib or fsx_gib(estimator.workload.latents_bytes)
    # AWS bills a GB-month of storage as 2^30 bytes.
    service, what = f"fsx_gb_month_{tier}", f"{gib:,} GiB at {tier} MB/s/TiB, {hours:,.0f} h"
    usd = gib * estimator.prices.service_usd(service) * hours / HOURS_PER_MONTH
    return _line("FSx for Lustre", what, usd, "the run's own hours: delete it afterwards", estimator.prices, service)


def _bucket(estimator: Estimator, around: Surroundings) -> Iterator[ForecastLine]:
    workload, prices, assumed = estimator.workload, estimator.prices, estimator.rates.assumed
    data = workload.shards_bytes + workload.latents_bytes + workload.descriptors_bytes
    stored = data + workload.checkpoints_bytes + workload.model_bytes
    usd = stored / GIB * prices.service_usd("s3_gb_month") * around.storage_months
    what = f"{stored / GB:,.0f} GB, {around.storage_months:g} months"
    yield _line("S3 storage", what, usd, "shards, latents, descriptors, checkpoints, model", prices, "s3_gb_month")
    written = stored / assumed.upload_part_bytes
    read = data / assumed.upload_part_bytes
    usd = (written * prices.service_usd("s3_put_1000") + read * prices.service_usd("s3_get_1000")) / 1000
    what = f"{written:,.0f} writes, {read:,.0f} reads"
    yield _line("S3 requests", what, usd, f"parts of {assumed.upload_part_bytes / 1e6:g} MB", prices, "s3_put_1000")


def _network(estimator: Estimator, jobs: Sequence[PlannedJob], hours: float) -> Iterator[ForecastLine]:
    prices, assumed = estimator.prices, estimator.rates.assumed
    usd = assumed.interface_endpoints * hours * prices.service_usd("endpoint_hour")
    what = f"{assumed.interface_endpoints} interface endpoints, {hours:,.0f} h"
    yield _line("Private endpoints", what, usd, "S3 goes by its free gateway", prices, "endpoint_hour")
    if any(job.in_network and job.program == "download" for job in jobs):
        fetched = estimator.workload.rows * assumed.source_picture_bytes / GB
        usd = hours * prices.service_usd("nat_hour") + fetched * prices.service_usd("nat_gb")
        rate = f"{assumed.source_picture_bytes / 1e3:g} KB a picture as its server sends it"
        yield _line("NAT gateway", f"{fetched:,.0f} GB fetched, {hours:,.0f} h", usd, rate, prices, "nat_gb")


def _line(step: str, what: str, usd: float, rate: str, prices: Prices, service: str) -> ForecastLine:
    says = prices.sources[prices.services[service].source].says
    return ForecastLine(step, what, 0.0, 0.0, same_usd(usd), "assumed", rate, says)
