"""The cheapest hosts of every step that keep the whole run within a deadline and a budget.

Reads a parameter set, a definition, changed parameters, prices.yaml and rates.yaml; writes nothing.

    sd-pipeline plan --deadline 10d --budget 40000 --params params/sd2_base.yaml
"""

import functools
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from params.parameter_names import GLOBAL_BATCH_SIZE
from params.settings import Settings
from pipeline_definition.cost.forecast import wall_hours, work_of
from pipeline_definition.cost.frontier import PlannedHosts, Way, frontier, in_turn, side_by_side
from pipeline_definition.cost.jobs import SECONDS_PER_HOUR, TIME_MARGIN, Estimator
from pipeline_definition.cost.prices import PURCHASES, Purchase
from pipeline_definition.cost.storage import Surroundings, other_lines
from pipeline_definition.cost.training import CostError
from pipeline_definition.cost.workload import Workload
from pipeline_definition.jobs.instances import (
    BFLOAT16_COMPUTE_CAPABILITY,
    even_sizes,
    instance,
    known_types,
    largest,
    training_bytes,
)
from pipeline_definition.jobs.planned import PlannedJob

# 1,024 GPUs with 8 to a host: so far the model of the scaling loss is fitted.
MAX_TRAINING_HOSTS = 128
# The most that CreateProcessingJob takes: steps that share out rows or pictures lose no speed with more hosts.
MAX_HOSTS = 100
RESERVED: Purchase = "training_plan"
MORE_USD, MORE_DAYS = 1000.0, 1.0


@dataclass(frozen=True)
class Plan:
    deadline_days: float
    budget_usd: float
    workload: Workload
    options: tuple[Way, ...]
    """To run the whole, or the trainings alone where that was asked for: those that no other beats in days and dollars
    both, cheapest first."""
    others: tuple[Way, ...] = field(default=(), repr=False)
    """The same without the instance type that the choice trains on."""

    def meets(self, option: Way) -> bool:
        return option.days <= self.deadline_days and option.usd <= self.budget_usd

    @property
    def best(self) -> Way | None:
        """The cheapest that keeps both; None where none does."""
        return next(filter(self.meets, self.options), None)

    @property
    def choice(self) -> Way:
        """The best, or the option whose worse excess over the two limits is smallest."""
        days, usd = self.deadline_days, self.budget_usd
        return self.best or min(self.options, key=lambda one: max(one.days / days, one.usd / usd))

    @property
    def rank(self) -> tuple[bool, float]:
        """By which plans of several parameter sets are ordered: those that keep both limits first, then by dollars."""
        return self.best is None, self.choice.usd

    @property
    def runner_up(self) -> Way | None:
        """The best that trains on another instance type; None where none keeps both limits."""
        return next(filter(self.meets, self.others), None)

    def bottleneck(self, option: Way) -> PlannedHosts:
        """Return the hosts of the step that would shorten the run most if it were twice as fast."""

        def hours_without_half_of(step: str) -> float:
            lines = [replace(one, hours=one.hours / 2) if one.step == step else one for one in option.hosts]
            return wall_hours(self.workload, lines)

        return min(option.hosts, key=lambda hosts: hours_without_half_of(hosts.step))

    def faster_for(self, usd: float) -> Way:
        """Return the fastest option for so many dollars more than the choice."""
        return [one for one in self.options if one.usd <= self.choice.usd + usd][-1]

    def cheaper_in(self, days: float) -> Way:
        """Return the cheapest option in so many days more than the choice."""
        return next(one for one in self.options if one.days <= self.choice.days + days)


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
    """Search the hosts of every step, against a deadline and a budget; what `parameters` set stays as it is.

    Raises CostError as `forecast` does, and where the global batch divides among no priced host's GPUs.
    """
    jobs, estimator = work_of(settings, definition, parameters, rows)
    search = _Search(estimator, tuple(jobs), frozenset(parameters), tuple(purchases), training_only)
    found = search.options()
    if not found:
        batches = " and ".join(sorted({f"{phase.global_batch_size:,}" for phase in estimator.workload.phases}))
        what = "divides among no priced host's GPUs that have room for a micro-batch"
        raise CostError(f"{GLOBAL_BATCH_SIZE} {batches} {what}")
    planned = Plan(deadline_days, budget_usd, estimator.workload, found)
    used = {hosts.instance_type for hosts in planned.choice.trainings}
    return replace(planned, others=search.options(without=used))


@dataclass(frozen=True)
class _Search:
    """Every way that the price file knows, step by step."""

    estimator: Estimator
    jobs: tuple[PlannedJob, ...]
    pinned: frozenset[str]
    """Parameters that stay as they are."""
    purchases: tuple[Purchase, ...]
    training_only: bool

    @property
    def workload(self) -> Workload:
        return self.estimator.workload

    def options(self, without: Collection[str] = ()) -> tuple[Way, ...]:
        """Return the frontier; `without`: instance types on which nothing is trained."""
        places = {job.step: place for place, job in enumerate(self.jobs)}
        ways = frontier(way for purchase in self.purchases for way in self._whole(purchase, without))
        in_order = (sorted(way.hosts, key=lambda hosts: places[hosts.step]) for way in ways)
        return tuple(replace(way, hosts=tuple(hosts)) for way, hosts in zip(ways, in_order, strict=True))

    def _whole(self, purchase: Purchase, without: Collection[str]) -> Sequence[Way]:
        """Return the frontier of the run; steps wait for each other as `forecast.wall_hours` has it."""
        trainings = {job.step: self._training_ways(job, purchase, without) for job in self.jobs if _is_training(job)}
        others = {} if self.training_only else self._others.get(purchase, self._others["on_demand"])
        if not all(trainings.values()):
            return ()
        ways = {**trainings, **others}
        first, *later = self.workload.phases
        trained = in_turn(ways.pop(step) for step in (first.encode_step, "Tune", first.train_step) if step in ways)
        for phase in later:
            encoded = ways.pop(phase.encode_step, None)
            begun = side_by_side(trained, encoded) if encoded else trained
            trained = in_turn((begun, ways.pop(phase.train_step)))
        whole = in_turn((*ways.values(), trained))
        if self.training_only:
            return whole
        fixed, hourly = self._surroundings()
        return [replace(way, usd=way.usd + fixed + hourly * way.hours) for way in whole]

    def _surroundings(self) -> tuple[float, float]:
        """Return dollars, and dollars for each hour of the run, of what is no job: file system, bucket, network."""
        usd = [
            sum(line.usd["on_demand"] or 0.0 for line in other_lines(self.estimator, self.jobs, hours, Surroundings()))
            for hours in (0.0, 1.0)
        ]
        return usd[0], usd[1] - usd[0]

    @functools.cached_property
    def _others(self) -> Mapping[Purchase, Mapping[str, Sequence[Way]]]:
        """The frontiers of the steps that train nothing, by the way trainings are bought: most stay on demand."""
        jobs = [job for job in self.jobs if not (_is_training(job) or job.program in ("serve", "stream"))]
        return {purchase: {job.step: self._ways(job, purchase) for job in jobs} for purchase in PURCHASES}

    def _ways(self, job: PlannedJob, purchase: Purchase) -> Sequence[Way]:
        """Return a step's frontier; hosts with which SageMaker would stop it at its time limit are not in it."""
        ways = []
        for other in self._hosted(job, MAX_HOSTS):
            line = self.estimator.line(other)
            if line is None:
                continue
            usd = line.usd.get(purchase) or line.usd["on_demand"] or 0.0
            way = Way(line.hours, usd, (_hosts(other, "on_demand", line.hours, usd, line.rate_kind),))
            fits = other == job or line.hours * TIME_MARGIN * SECONDS_PER_HOUR <= job.max_runtime_s
            ways += [way] if fits else []
        return frontier(ways)

    def _training_ways(self, job: PlannedJob, purchase: Purchase, without: Collection[str]) -> Sequence[Way]:
        """Return the frontier of a training, with the encoders in its job."""
        ways = []
        for other in self._hosted(job, MAX_TRAINING_HOSTS):
            gpus = other.count * other.instance.ranks
            if other.instance.name in without or not (size := self._micro_batch_size(other, gpus)):
                continue
            if not self.estimator.prices.find(other.instance.name, purchase) and not job.training_plan:
                continue
            # Reserved hosts have one price, however the other steps are bought.
            other = replace(other, training_plan=job.training_plan or RESERVED) if purchase == RESERVED else other
            line, stream = self.estimator.line(other), self.estimator.streams.get(job.step)
            # Encoders are paid for as long as the training on these hosts takes.
            beside = replace(self.estimator, trainings={**self.estimator.trainings, other.step: other})
            lines = [line, beside.line(stream)] if stream else [line]
            usd = [one.usd["on_demand" if purchase == RESERVED else purchase] for one in lines if one]
            if line is None or None in usd:
                continue
            hours = line.hours * (self.estimator.rates.assumed.spot_time_factor if purchase == "spot" else 1.0)
            total, speed = sum(filter(None, usd)), self.estimator.efficiency(other)
            hosts = _hosts(other, purchase, hours, total, line.rate_kind)
            ways.append(Way(hours, total, (replace(hosts, micro_batch_size=size, efficiency=speed),)))
        return frontier(ways)

    def _hosted(self, job: PlannedJob, most: int) -> Iterator[PlannedJob]:
        """Yield a job on its own hosts, then on all others that it may have."""
        yield job
        if job.training_plan or job.fallbacks or job.choices or job.program == "throughput":
            return
        has_type = job.type_parameter == job.step or job.type_parameter in self.pinned
        has_count = job.count_parameter == job.step or job.count_parameter in self.pinned
        own = [job.instance.name] if has_type or job.instance.gpu is None else self._candidates(job)
        for name in own:
            for count in [job.count] if has_count else range(1, most + 1):
                if (name, count) != (job.instance.name, job.count):
                    yield replace(job, instance=instance(name), count=count)

    def _candidates(self, job: PlannedJob) -> Iterator[str]:
        """Yield priced hosts whose GPUs have bfloat16 and a known speed, also in float32 for the other programs."""
        for name, prices in self.estimator.prices.instances.items():
            gpu, peaks = instance(name).gpu, self.estimator.rates.gpus
            if not gpu or gpu.name not in peaks or gpu.compute_capability < BFLOAT16_COMPUTE_CAPABILITY:
                continue
            sold = "on_demand" in prices or (_is_training(job) and "training_plan" in self.purchases)
            if sold and name in known_types(job.kind) and (_is_training(job) or peaks[gpu.name].single):
                yield name

    def _micro_batch_size(self, job: PlannedJob, gpus: int) -> int:
        """Return the largest micro-batch of a phase that a host's GPUs have room for; 0: none."""
        gpu, batch = job.instance.gpu, self.workload.phase_of(job.step).global_batch_size
        if gpu is None or batch % gpus:
            return 0
        phase = self.estimator.phase_of(job.step)
        needed = functools.partial(training_bytes, self.estimator.model, phase, gpu, gpus)
        return largest(even_sizes(batch // gpus), gpu, needed)


def _is_training(job: PlannedJob) -> bool:
    return job.program == "train" and not job.choices


def _hosts(job: PlannedJob, purchase: Purchase, hours: float, usd: float, rate_kind: str) -> PlannedHosts:
    parameters = (job.type_parameter, job.count_parameter)
    gpus = job.count * job.instance.gpus
    return PlannedHosts(job.step, job.instance.name, job.count, purchase, hours, usd, rate_kind, *parameters, gpus)
