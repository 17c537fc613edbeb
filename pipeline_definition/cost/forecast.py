"""What one start of the pipeline will cost, step by step.

Reads a parameter set, a definition, changed parameters, prices.yaml and rates.yaml; writes nothing, and needs neither a
connection nor the SageMaker SDK.

    sd-pipeline cost forecast --params params/sd2_base.yaml --set TrainingInstanceCount=16
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from params.memory import family_of_denoiser
from params.settings import Settings
from pipeline_definition.cost.corrections import load_corrections
from pipeline_definition.cost.frontier import PlannedHosts
from pipeline_definition.cost.jobs import Estimator, ForecastLine, total_usd
from pipeline_definition.cost.prices import Prices, Purchase, load_prices
from pipeline_definition.cost.rates import load_rates
from pipeline_definition.cost.storage import Surroundings, other_lines
from pipeline_definition.cost.training import HOURS_PER_DAY, CostError
from pipeline_definition.cost.workload import Workload, declared_model, workload_of
from pipeline_definition.jobs.planned import PlannedJob, Values, planned_jobs


@dataclass(frozen=True)
class Forecast:
    """The bill of one start."""

    workload: Workload
    prices: Prices
    lines: tuple[ForecastLine, ...]
    """The run: its jobs in order, then the other costs."""
    monthly: tuple[ForecastLine, ...]
    """What is billed each month afterwards: the endpoint."""

    @property
    def hours(self) -> float:
        """Wall time: steps wait for each other, except a later phase's Encode, which overlaps the phases before it."""
        return wall_hours(self.workload, self.lines)

    @property
    def days(self) -> float:
        return self.hours / HOURS_PER_DAY

    @property
    def gpu_hours(self) -> float:
        return sum(line.gpu_hours for line in self.lines)

    @property
    def missing(self) -> tuple[str, ...]:
        """Prices that are not known, each once."""
        return tuple(dict.fromkeys(name for line in (*self.lines, *self.monthly) for name in line.missing))

    def usd(self, purchase: Purchase) -> float:
        """Return the run's dollars, the endpoint left out; see `is_bound`."""
        return total_usd(self.lines, purchase)

    def is_bound(self, purchase: Purchase) -> bool:
        """Tell whether a line's price of that kind is not known, so that `usd` is an upper bound."""
        return any(line.usd[purchase] is None for line in self.lines)


def wall_hours(workload: Workload, lines: Sequence[ForecastLine | PlannedHosts]) -> float:
    """Return how long a run takes from its first step to its last."""
    hours = defaultdict(float, {line.step: line.hours for line in lines})
    whole = sum(hours.values())
    first, *later = workload.phases
    # Since Download's end, by when the phases so far are trained.
    trained = hours[first.encode_step] + hours["Tune"] + hours[first.train_step]
    for phase in later:
        encoded = hours[phase.encode_step]
        whole -= min(trained, encoded)
        trained = max(trained, encoded) + hours[phase.train_step]
    return whole


def forecast(
    settings: Settings,
    definition: Mapping[str, Any],
    parameters: Mapping[str, str],
    around: Surroundings | None = None,
    rows: int | None = None,
) -> Forecast:
    """Return the forecast of starting a definition with some parameters changed.

    Raises CostError for a set that runs on this machine, and for an unknown parameter, rate or price.
    """
    jobs, estimator = work_of(settings, definition, parameters, rows)
    workload, around = estimator.workload, around or Surroundings()
    lines = [line for job in jobs if (line := estimator.line(job))]
    # Latents are written by Encode and read until Train ends: the file system is there for the whole run.
    hours = wall_hours(workload, lines)
    lines += other_lines(estimator, jobs, hours, around)
    monthly = [estimator.endpoint(job, 1.0) for job in jobs if job.program == "serve"]
    return Forecast(workload, estimator.prices, tuple(lines), tuple(monthly))


def work_of(
    settings: Settings, definition: Mapping[str, Any], parameters: Mapping[str, str], rows: int | None
) -> tuple[list[PlannedJob], Estimator]:
    """Return the jobs of a start, and what tells the hours and dollars of each. Raises CostError as `forecast` does."""
    prices, rates = load_prices(), load_rates()
    values = _values(settings, definition, parameters, prices)
    jobs = planned_jobs(definition, values)
    streams = {job.step: job for job in jobs if job.program == "stream"}
    trainings = {job.step: job for job in jobs if job.program == "train" and job.step in streams}
    workload = workload_of(settings, values, rates.assumed, rows)
    if empty := [job.count_parameter for job in jobs if job.count < 1]:
        raise CostError(f"{empty[0]}: set it to 1 or more")
    return jobs, Estimator(settings, workload, rates, prices, streams, trainings, load_corrections())


def caption_note(bill: Forecast, settings: Settings, *rest: Any) -> str:
    """Return the other value of a key if it makes captions cheaper, by its own forecast; `rest` as of `forecast`.

    Stored embeddings cost their bytes, and save the text encoder's FLOPs in every epoch. Several encoders store none.
    """
    other = settings.encode.model_copy(update={"caption_embeddings": not settings.encode.caption_embeddings})
    changed_usd = forecast(settings.model_copy(update={"encode": other}), *rest).usd("on_demand")
    encoders = family_of_denoiser(declared_model(settings.data.model).denoiser).text
    if changed_usd >= bill.usd("on_demand") or len(encoders) > 1 or settings.train.lora_text_encoder:
        return ""
    saved, value = bill.usd("on_demand") - changed_usd, str(other.caption_embeddings).lower()
    return f"encode.caption_embeddings: {value} would make it ${saved:,.2f} cheaper"


def _values(settings: Settings, definition: Mapping[str, Any], parameters: Mapping[str, str], prices: Prices) -> Values:
    if settings.local is not None:
        raise CostError("this parameter set runs on this machine and costs nothing: forecast a set for AWS")
    if settings.account.region != prices.region:
        raise CostError(
            f"the prices are those of {prices.region} and account.region is {settings.account.region}: "
            f"`sd-pipeline cost prices refresh --region {settings.account.region}`"
        )
    known = Values(definition, {})
    unknown = [name for name in parameters if name not in known]
    if unknown:
        raise CostError(f"--set {unknown[0]}: no such parameter; `sd-pipeline parameters` lists them")
    return Values(definition, parameters)
