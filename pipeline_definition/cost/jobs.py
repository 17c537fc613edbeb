"""What each step's jobs cost: hosts, hours and dollars, by the rate of its GPUs.

Reads planned jobs, a workload, rates and prices; writes nothing.
"""

import functools
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from params.memory import ModelFigures
from params.phases import Phase
from params.settings import Settings
from pipeline_definition.cost.corrections import Correction, Work
from pipeline_definition.cost.prices import PURCHASES, Prices, Purchase
from pipeline_definition.cost.rates import Rate, Rates, gpu_of
from pipeline_definition.cost.workload import Workload, declared_model
from pipeline_definition.jobs.instances import Gpu, Instance
from pipeline_definition.jobs.planned import PlannedJob

SECONDS_PER_HOUR = 3600.0
# What a job's time limit is at least, over its forecast.
TIME_MARGIN = 1.1
HOURS_PER_MONTH = 730.0
# A third more compute for activations that are computed twice (params: train.gradient_checkpointing).
CHECKPOINTING_COMPUTE = 4 / 3
# Building and compiling the denoiser for one micro-batch size: assumed.
SWEEP_SET_UP_S = 120.0

Bill = Mapping[Purchase, float | None]
"""Dollars by way of buying; None: the price is not known."""


@dataclass(frozen=True)
class ForecastLine:
    step: str
    what: str
    """Hosts, size, or number of requests."""
    hours: float
    """Of wall time; 0 for what runs in parallel with the steps."""
    gpu_hours: float
    usd: Bill
    rate_kind: str
    """measured, published, derived or assumed."""
    rate: str
    """The rate itself and its source."""
    price: str
    """Where the price comes from."""
    missing: tuple[str, ...] = ()
    """Prices that are not known, such as `spot of ml.p4de.24xlarge`."""
    hours_factor: float = 1.0
    """By which a finished run corrected the hours."""


@dataclass(frozen=True)
class Estimator:
    """Everything that a line needs in addition to its job."""

    settings: Settings
    workload: Workload
    rates: Rates
    prices: Prices
    streams: Mapping[str, PlannedJob]
    """Encoders in the job of a training, by its step."""
    trainings: Mapping[str, PlannedJob]
    """The trainings that have encoders, by step."""
    corrections: Mapping[Work, Correction]

    @functools.cached_property
    def model(self) -> ModelFigures:
        return declared_model(self.settings.data.model)

    @functools.cached_property
    def phase_of(self) -> Callable[[str], Phase]:
        """`Settings.phase_of`, asked once for each step: a plan has thousands of lines."""
        return functools.cache(self.settings.phase_of)

    def line(self, job: PlannedJob) -> ForecastLine | None:
        """Return the line of a step's jobs; None for an endpoint, which is paid by the month."""
        if job.program == "download":
            return self._single(job, self.workload.rows, self.rates.download_rate(job.instance), job.count)
        if job.program == "recaption" and self.settings.recaption:
            rate = self.rates.caption_rate(_gpu(job), self.settings.recaption.precision)
            return self._single(job, self.workload.rows, rate, job.count * job.instance.ranks)
        if job.program == "encode":
            rows = self.workload.phase_of(job.step).encoded_rows
            return self._single(job, rows, self._encode_rate(job), job.count * job.instance.ranks)
        if job.program == "train":
            return self._tune(job) if job.choices else self._train(job)
        others = {"stream": self._stream, "throughput": self._throughput, "evaluate": self._evaluate}
        return others[job.program](job) if job.program in others else None

    def endpoint(self, job: PlannedJob, months: float) -> ForecastLine:
        """Return what an endpoint costs for this many months."""
        hours = HOURS_PER_MONTH * months
        return self._line(job, f"{months:g} months", hours, job.count, "assumed", "runs until it is deleted")

    def _train(self, job: PlannedJob) -> ForecastLine:
        phase = self.workload.phase_of(job.step)
        hours, rate = self.train_hours(job, phase.training_samples)
        what = f"{phase.resolution_px} px, {phase.training_samples:,} samples"
        return self._line(job, what, hours, job.count, rate.kind, _rate_text(rate))

    def _tune(self, job: PlannedJob) -> ForecastLine:
        hours, rate = self.train_hours(job, self.workload.tune_samples)
        waves = math.ceil(self.workload.trials / max(job.parallel, 1))
        what = f"{self.workload.trials} trials of {self.workload.tune_samples:,} samples, {job.parallel} at once"
        hosts = job.count * self.workload.trials / waves
        return self._line(job, what, hours * waves, hosts, rate.kind, _rate_text(rate))

    def _throughput(self, job: PlannedJob) -> ForecastLine:
        """Return the line of the measurement: each size is set up, compiled and timed."""
        sizes = str(job.hyperparameters["throughput_micro_batch_sizes"]).split(",")
        measured_s = float(job.hyperparameters["throughput_s"])
        hours = self._hours(len(sizes) * (SWEEP_SET_UP_S + measured_s))
        return self._line(job, f"{len(sizes)} micro-batch sizes", hours, job.count, "assumed", "set by the settings")

    def train_hours(self, job: PlannedJob, samples: int) -> tuple[float, Rate]:
        """Return the hours of one training, the start and the loss of many GPUs included."""
        rate = self._train_rate(job)
        speed = rate.samples_per_s * job.count * job.instance.ranks * self.efficiency(job)
        if self.phase_of(job.step).train.gradient_checkpointing:
            speed /= CHECKPOINTING_COMPUTE
        if (stream := self.streams.get(job.step)) and not job.choices:
            # Whichever side is slower makes the other wait.
            speed = min(speed, self._encode_rate(stream).samples_per_s * stream.count * stream.instance.ranks)
        return self._hours(samples / speed), rate

    def efficiency(self, job: PlannedJob) -> float:
        """Return what is left of a GPU's speed in a training on its hosts, in (0, 1]."""
        batch = self.workload.phase_of(job.step).global_batch_size
        return self.rates.efficiency(job.count * job.instance.ranks, batch, self._train_rate(job).samples_per_s)

    def _train_rate(self, job: PlannedJob) -> Rate:
        side_px = self.workload.phase_of(job.step).resolution_px
        return self.rates.train_rate(self.model, _gpu(job), side_px, not self.settings.encode.caption_embeddings)

    def _encode_rate(self, job: PlannedJob) -> Rate:
        encode = self.phase_of(job.step).encode
        how = (encode.resolution_px, encode.precision, encode.caption_embeddings)
        return self.rates.encode_rate(self.model, _gpu(job), *how)

    def _stream(self, job: PlannedJob) -> ForecastLine:
        """Return the line of encoders: paid for as long as the training that they feed, and no longer than it."""
        samples = self.workload.phase_of(job.step).training_samples
        hours, _ = self.train_hours(self.trainings[job.step], samples)
        rate = self._encode_rate(job)
        line = self._line(job, "encode while training", hours, job.count, rate.kind, _rate_text(rate))
        return replace(line, step=encoders_step(job.step), hours=0.0)

    def _evaluate(self, job: PlannedJob) -> ForecastLine:
        evaluate = self.settings.evaluate
        pictures = self.workload.evaluation_samples + evaluate.untrained_samples + self._further_pictures()
        # With guidance, each step has two passes.
        passes = evaluate.inference_steps * (1 if evaluate.guidance_scale == 1 else 2)
        rate = self.rates.generate_rate(self.model, _gpu(job), self.workload.resolution_px, passes, evaluate.precision)
        return self._single(job, pictures, rate, job.count * job.instance.ranks)

    def _further_pictures(self) -> int:
        """Return what curve, comparisons and prompt following add, in pictures of the evaluation's own size.

        The generic pretrained model is taken to be a whole one. The approved model's pictures are kept from when it was
        judged itself, so they are not drawn again.
        """
        evaluate, asked = self.settings.evaluate, self.workload.evaluation_samples
        scales = set(evaluate.guidance_grid) - {evaluate.guidance_scale}
        side_px = evaluate.pretrained_size_px or self.workload.resolution_px
        generic = min(evaluate.comparison_samples, asked) * (side_px / self.workload.resolution_px) ** 2
        following = evaluate.following_samples if evaluate.following == "detector" else 0
        return len(scales) * min(evaluate.grid_samples, asked) + round(generic) + following

    def _single(self, job: PlannedJob, samples: int, rate: Rate, workers: int) -> ForecastLine:
        hours = self._hours(samples / (rate.samples_per_s * workers))
        return self._line(job, f"{samples:,} samples", hours, job.count, rate.kind, _rate_text(rate))

    def _hours(self, seconds: float) -> float:
        return (self.rates.assumed.job_start_s + seconds) / SECONDS_PER_HOUR

    def _line(self, job: PlannedJob, what: str, hours: float, hosts: float, kind: str, rate: str) -> ForecastLine:
        work = (job.program, job.instance.name, self.model.name)
        correction = None if job.choices else self.corrections.get(work)
        if correction:
            hours, kind = hours * correction.hours_factor, "measured"
            rate = f"{rate}; times {correction.hours_factor:.2f} by run {correction.run} of {correction.date}"
        bill, missing = self._bill(job, hours * hosts)
        bought: Purchase = "training_plan" if job.training_plan else "on_demand"
        others = "".join(f", else {self._priced(host, count)}" for host, count in job.fallbacks)
        return ForecastLine(
            step=job.step,
            what=f"{hosts:g} x {job.instance.name}: {what}{others}",
            hours=hours,
            gpu_hours=hours * hosts * job.instance.gpus,
            usd=bill,
            rate_kind=kind,
            rate=rate,
            price=self.prices.sources[self.prices.known(job.instance.name, bought).source].says,
            missing=missing,
            hours_factor=correction.hours_factor if correction else 1.0,
        )

    def _bill(self, job: PlannedJob, instance_hours: float) -> tuple[Bill, tuple[str, ...]]:
        """Return dollars by way of buying; only trainings can be had on spot instances: others stay on demand there.

        Reserved hosts have one price, which is paid already.
        """
        if job.training_plan:
            return same_usd(self.prices.known(job.instance.name, "training_plan").usd * instance_hours), ()
        name = job.instance.name
        on_demand = self.prices.known(name, "on_demand")
        # A training, or trials for which the parameter set asks for spot instances.
        may_be_spot = job.kind == "training" and job.program != "throughput" and (job.spot or not job.choices)
        prices = {
            purchase: on_demand if purchase == "spot" and not may_be_spot else self.prices.find(name, purchase)
            for purchase in PURCHASES
        }
        missing = tuple(f"{purchase.replace('_', ' ')} of {name}" for purchase, price in prices.items() if not price)
        return {purchase: price.usd * instance_hours if price else None for purchase, price in prices.items()}, missing

    def _priced(self, host: Instance, count: int) -> str:
        price = self.prices.find(host.name, "on_demand")
        return f"{count} x {host.name} ({f'${price.usd:,.2f} an hour' if price else 'price unknown'} each)"


def same_usd(usd: float) -> Bill:
    """Return the bill of something that has one price however the instances are bought."""
    return dict.fromkeys(PURCHASES, usd)


def total_usd(lines: Iterable[ForecastLine], purchase: Purchase) -> float:
    """Return the sum; a line without a price of that kind counts at its on-demand price: an upper bound."""
    # Every line has an on-demand price: an unknown one is an error before there is a line.
    amounts = (line.usd[purchase] if line.usd[purchase] is not None else line.usd["on_demand"] for line in lines)
    return sum(amount or 0.0 for amount in amounts)


def encoders_step(step: str) -> str:
    return f"{step} encoders"


def _gpu(job: PlannedJob) -> Gpu:
    return gpu_of(job.instance, job.type_parameter)


def _rate_text(rate: Rate) -> str:
    return f"{rate.samples_per_s:,.1f}/s: {rate.source}"
