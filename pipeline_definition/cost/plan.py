"""The cheapest hosts for Train that keep the whole run within a deadline and a budget.

Reads a parameter set, a definition, changed parameters, prices.yaml and rates.yaml; writes nothing.

    sd-pipeline plan --deadline 10d --budget 40000 --params params/sd2_base.yaml
"""

from __future__ import annotations

import functools
import itertools
import math
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from params.parameter_names import GLOBAL_BATCH_SIZE
from params.settings import Settings
from pipeline_definition.cost.forecast import Forecast, forecast
from pipeline_definition.cost.jobs import Estimator
from pipeline_definition.cost.prices import Prices, Purchase, load_prices
from pipeline_definition.cost.rates import Rates, load_rates
from pipeline_definition.cost.training import HOURS_PER_DAY, CostError
from pipeline_definition.jobs.instances import BFLOAT16_COMPUTE_CAPABILITY, Instance, instance, known_types
from pipeline_definition.jobs.memory import even_sizes, largest, training_bytes
from pipeline_definition.jobs.planned import PlannedJob, Values, planned_jobs

# Twice as many GPUs as the model of the scaling loss is fitted on, with 8 to a host: no further can it be trusted.
MAX_HOSTS = 32
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([hdw])")
_HOURS = {"h": 1.0, "d": 24.0, "w": 168.0}


@dataclass(frozen=True)
class Option:
    """One way to train."""

    instance_type: str
    instances: int
    gpus: int
    purchase: Purchase
    days: float
    """Of the whole run, or of the training alone where that was asked for."""
    usd: float
    efficiency: float
    """What is left of a GPU's speed on one host."""
    rate_kind: str
    training_days: float
    training_usd: float
    micro_batch_sizes: tuple[int, ...]
    """The largest that the GPU's memory has room for, for each phase; a smaller one does, too."""


@dataclass(frozen=True)
class Plan:
    """The options, and what was asked for."""

    deadline_days: float
    budget_usd: float
    options: tuple[Option, ...]
    """Cheapest first."""

    def meets(self, option: Option) -> bool:
        """Tell whether an option keeps both limits."""
        return option.days <= self.deadline_days and option.usd <= self.budget_usd

    @property
    def best(self) -> Option | None:
        """The cheapest that keeps both, the faster of two that cost the same; None where none does."""
        return next((option for option in self.options if self.meets(option)), None)

    @property
    def nearest(self) -> Option:
        """The option whose worse excess over the two limits is smallest."""
        return min(self.options, key=lambda o: max(o.days / self.deadline_days, o.usd / self.budget_usd))

    @property
    def frontier(self) -> tuple[Option, ...]:
        """Options that no other beats in days and dollars both, cheapest first."""
        fastest = itertools.accumulate((option.days for option in self.options), min, initial=math.inf)
        return tuple(option for option, days in zip(self.options, fastest, strict=False) if option.days < days)

    def verdict(self) -> str:
        """Return one sentence: the choice, or what comes nearest and what each limit alone would allow."""
        if self.best:
            return f"{option_text(self.best)} meets both."
        within = [option for option in self.options if option.days <= self.deadline_days]
        paid = [option for option in self.options if option.usd <= self.budget_usd]
        limits = f"{self.deadline_days:g} days and ${self.budget_usd:,.0f}"
        parts = [f"nothing meets {limits}: nearest is {option_text(self.nearest)}"]
        if within:
            parts.append(f"within the deadline the cheapest is {option_text(within[0])}")
        if paid:
            parts.append(f"within the budget the fastest is {option_text(min(paid, key=lambda option: option.days))}")
        return "; ".join(parts) + "."


def option_text(option: Option) -> str:
    """Return an option in words."""
    way = option.purchase.replace("_", " ")
    return f"{option.instances} x {option.instance_type} {way} ({option.days:.1f} days, ${option.usd:,.0f})"


def parse_days(text: str) -> float:
    """Return days of `36h`, `10d` or `2w`."""
    match = _DURATION.fullmatch(text.strip().lower())
    days = float(match[1]) * _HOURS[match[2]] / HOURS_PER_DAY if match else 0.0
    if not 0 < days < math.inf:
        raise CostError(f"--deadline {text}: write it as 36h, 10d or 2w")
    return days


def plan(
    settings: Settings,
    definition: Mapping[str, Any],
    parameters: Mapping[str, str],
    deadline_days: float,
    budget_usd: float,
    purchases: Sequence[Purchase] = ("on_demand", "spot"),
    training_only: bool = False,
    rows: int | None = None,
) -> Plan:
    """Return every way to train that the price file knows, against a deadline and a budget.

    Raises CostError as `forecast` does, or for a budget that is not a number above 0.
    """
    if not 0 < budget_usd < math.inf:
        raise CostError(f"--budget {budget_usd:g}: give a number of dollars above 0")
    prices, rates = load_prices(), load_rates()
    bill = forecast(settings, definition, parameters, rows=rows, prices=prices, rates=rates)
    # The trainings of all phases run on the same hosts, one after the other.
    planned = planned_jobs(definition, Values(definition, parameters))
    jobs = [job for job in planned if job.program == "train" and not job.choices]
    estimator = Estimator(settings, bill.workload, rates, prices)
    rest = (0.0, 0.0, 0.0) if training_only else _rest(bill, {job.step for job in jobs})
    options = list(_options(estimator, jobs, purchases, rest))
    if not options:
        batches = " and ".join(sorted({f"{phase.global_batch_size:,}" for phase in bill.workload.phases}))
        raise CostError(
            f"{GLOBAL_BATCH_SIZE} {batches} divides among no priced host's GPUs that have room for a micro-batch"
        )
    return Plan(deadline_days, budget_usd, tuple(sorted(options, key=lambda o: (o.usd, o.days))))


def _rest(bill: Forecast, trainings: Collection[str]) -> tuple[float, float, float]:
    """Return hours, dollars, and dollars for an hour more, of everything but the trainings."""
    others = [line for line in bill.lines if line.step not in trainings]
    # The file system and the private network are there as long as the run: they cost more when Train takes longer.
    lasting = [line for line in others if line.step in ("FSx for Lustre", "Private endpoints")]
    hourly = sum(line.usd["on_demand"] or 0.0 for line in lasting) / bill.hours
    fixed = sum(line.usd["on_demand"] or 0.0 for line in others if line not in lasting)
    return sum(line.hours for line in others), fixed, hourly


def _options(
    estimator: Estimator, jobs: Sequence[PlannedJob], purchases: Sequence[Purchase], rest: tuple[float, float, float]
) -> Iterator[Option]:
    batches = {phase.global_batch_size for phase in estimator.workload.phases}
    for name in _candidates(estimator.prices, estimator.rates):
        host = instance(name)
        for count in range(1, MAX_HOSTS + 1):
            gpus = count * host.ranks
            if any(batch % gpus for batch in batches):
                continue
            sizes = tuple(_micro_batch_size(estimator, job, host, gpus) for job in jobs)
            if 0 in sizes:
                continue
            hours, rate_kind = _training(estimator, jobs, host, count)
            prices = ((purchase, estimator.prices.find(name, purchase)) for purchase in purchases)
            for purchase, usd in ((purchase, hours * count * price.usd) for purchase, price in prices if price):
                wall = hours * (estimator.rates.assumed.spot_time_factor if purchase == "spot" else 1.0)
                all_hours = wall + rest[0]
                yield Option(
                    instance_type=name,
                    instances=count,
                    gpus=gpus,
                    purchase=purchase,
                    days=all_hours / HOURS_PER_DAY,
                    usd=usd + rest[1] + rest[2] * all_hours,
                    efficiency=estimator.rates.efficiency(gpus, min(batches)),
                    rate_kind=rate_kind,
                    training_days=wall / HOURS_PER_DAY,
                    training_usd=usd,
                    micro_batch_sizes=sizes,
                )


def _micro_batch_size(estimator: Estimator, job: PlannedJob, host: Instance, gpus: int) -> int:
    """Return the largest micro-batch of a phase that a host's GPUs have room for; 0: none."""
    model, phase, gpu = estimator.model, estimator.settings.phase_of(job.step), host.gpu
    assert gpu is not None
    sizes = even_sizes(estimator.workload.phase_of(job.step).global_batch_size // gpus)
    return largest(sizes, gpu, functools.partial(training_bytes, model, phase, gpu, gpus))


def _training(estimator: Estimator, jobs: Sequence[PlannedJob], host: Instance, count: int) -> tuple[float, str]:
    """Return the hours of all phases on `count` hosts, and the kind of the last one's rate."""
    phases = [(replace(job, instance=host, count=count), estimator.workload.phase_of(job.step)) for job in jobs]
    trained = [estimator.train_hours(job, phase.training_samples) for job, phase in phases]
    return sum(hours for hours, _ in trained), trained[-1][1].kind


def _candidates(prices: Prices, rates: Rates) -> Iterable[str]:
    """Return priced training hosts whose GPUs have bfloat16 and a known speed."""
    for name in prices.instances:
        gpu = instance(name).gpu
        fit = gpu and gpu.name in rates.gpus and gpu.compute_capability >= BFLOAT16_COMPUTE_CAPABILITY
        if fit and name in known_types("training"):
            yield name
