"""The arithmetic of a business case: three questions, answered from a file of inputs.

A model is credited only with what it adds over the best one that takes less money (incremental analysis, as any text on
capital budgeting has it): what the open model would earn is no return on training another.

Reads inputs, prices.yaml and rates.yaml; writes nothing.

    sd-pipeline business-case --inputs my_case.yaml --out business_case
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline_definition.cost.business_inputs import BusinessCase, Candidate, Use, input_at
from pipeline_definition.cost.jobs import SECONDS_PER_HOUR
from pipeline_definition.cost.prices import load_prices
from pipeline_definition.cost.rates import gpu_of, load_rates
from pipeline_definition.cost.workload import declared_model
from pipeline_definition.jobs.instances import instance

MONTHS_PER_YEAR = 12
BUDGET_FACTORS = (0.5, 1.0, 2.0)
HALVINGS = 60
DEFAULT_RANGE = 0.2


@dataclass(frozen=True)
class UseAnswer:
    """What the best of the models would do for one use."""

    use: Use
    saving_usd_per_year: float
    hours_saved_per_year: float

    @property
    def gain_usd_per_year(self) -> float:
        """Saving and new revenue; below zero where the model costs more than it brings."""
        return self.saving_usd_per_year + self.use.revenue_usd_per_year

    @property
    def kind(self) -> str:
        """What it does most of all."""
        if self.use.revenue_usd_per_year > max(self.saving_usd_per_year, 0.0):
            return "grows revenue"
        if self.saving_usd_per_year > 0:
            return "cuts cost"
        return "speeds up production" if self.hours_saved_per_year > 0 else "does not pay"


@dataclass(frozen=True)
class Swing:
    """How far one input moves the custom model's net present value."""

    path: str
    low: float
    high: float
    low_usd: float
    high_usd: float
    is_stated: bool
    """Whether the inputs state the range; else it is a fifth down and up."""


@dataclass(frozen=True)
class Answers:
    case: BusinessCase
    generation_usd_per_picture: float
    endpoint_usd_per_hour: float
    pictures_per_hour: float
    training_instance_usd_per_hour: float

    # Question 1: what the best of the models brings.

    @property
    def uses(self) -> tuple[UseAnswer, ...]:
        """Each use with the model that brings most a year."""
        best = max(self.case.candidates.values(), key=self.gain_of)
        return self.uses_with(best)

    def uses_with(self, candidate: Candidate) -> tuple[UseAnswer, ...]:
        """Return what a model does for each use. What is not made today has no cost to save."""
        answers, unit_usd = [], self.usd_per_accepted_image(candidate)
        for use in self.case.uses:
            hours = max(0.0, use.hours_per_image_today - use.hours_per_image_with_model)
            saved_usd = use.usd_per_image_today + hours * use.usd_per_hour_saved - unit_usd
            answers.append(UseAnswer(use, use.images_per_year * saved_usd, use.images_per_year * hours))
        return tuple(answers)

    def gain_of(self, candidate: Candidate) -> float:
        """Return dollars a year that a model brings over today, before its own cost."""
        return sum(answer.gain_usd_per_year for answer in self.uses_with(candidate))

    # Question 2: which of the models.

    def usd_per_accepted_image(self, candidate: Candidate) -> float:
        """Return generating and looking at as many pictures as one accepted takes, and what wrong ones cost."""
        drawn = self.generation_usd_per_picture if candidate.usd_per_picture is None else candidate.usd_per_picture
        looked_at = (drawn + self.case.review_usd_per_picture) / candidate.accepted_fraction
        return looked_at + candidate.wrong_fraction * self.case.usd_per_wrong_picture

    @property
    def images(self) -> float:
        """Accepted pictures over the years, of every use."""
        return self.case.investment.years * sum(use.images_per_year for use in self.case.uses)

    def total_usd(self, candidate: Candidate, images: float) -> float:
        """Return what this many accepted pictures cost over the years, the model included."""
        return candidate.fixed_usd(self.case.investment.years) + images * self.usd_per_accepted_image(candidate)

    def net_value_of(self, candidate: Candidate) -> float:
        """Return a model's own value today over doing nothing: its gain less what it costs to have, month by month."""
        investment, yearly = self.case.investment, candidate.upkeep_usd_per_year + candidate.licence_usd_per_year
        months = range(1, investment.years * MONTHS_PER_YEAR + 1)
        kept = sum(self._discount(month) for month in months) * yearly / MONTHS_PER_YEAR
        return self.gain_of(candidate) * self._present_of_a_dollar - candidate.fixed_usd(0) - kept

    @functools.cached_property
    def defender_name(self) -> str:
        """The model that a custom one has to beat: the most valuable of the others; `nothing` where none pays."""
        others = {name: one for name, one in self.case.candidates.items() if name != "custom"}
        name, best = max(others.items(), key=lambda item: self.net_value_of(item[1]))
        return name if self.net_value_of(best) > 0 else "nothing"

    @property
    def defender_usd_per_year(self) -> float:
        name = self.defender_name
        return self.gain_of(self.case.candidates[name]) if name != "nothing" else 0.0

    @property
    def break_even_images(self) -> float | None:
        """Accepted pictures over the years from which the custom model is cheaper than the open one; None: never."""
        years = self.case.investment.years
        dearer = self.case.custom.fixed_usd(years) - self.case.pretrained.fixed_usd(years)
        saved = self.usd_per_accepted_image(self.case.pretrained) - self.usd_per_accepted_image(self.case.custom)
        if dearer <= 0 and saved >= 0:
            return 0.0
        return dearer / saved if saved > 0 else None

    @property
    def cheapest_name(self) -> str:
        """The model that costs least at the volume of the uses."""
        return min(self.case.candidates, key=lambda name: self.total_usd(self.case.candidates[name], self.images))

    # Question 3: what the budget adds.

    @property
    def _months(self) -> int:
        return self.case.investment.years * MONTHS_PER_YEAR

    @property
    def added_usd_per_year(self) -> float:
        """What the custom model brings over the best of the others, times the chance that it comes to work."""
        added = self.gain_of(self.case.custom) - self.defender_usd_per_year
        return added * (1.0 - self.case.custom.failure_probability)

    def _discount(self, month: int) -> float:
        return float((1.0 + self.case.investment.discount_rate) ** (-month / MONTHS_PER_YEAR))

    def _part_of_gain(self, month: int) -> float:
        """Return which part of the gain comes in a month, counted from the first dollar: none, a rising part, all."""
        month -= self.case.investment.months_until_return
        return min(1.0, max(0, month) / (self.case.investment.ramp_up_months + 1))

    @functools.cached_property
    def _present_of_a_dollar(self) -> float:
        """Today's value of one dollar a year: the sum over months m of 1 / 12 / (1 + r)^(m / 12)."""
        months = range(1, self._months + 1)
        return sum(self._part_of_gain(month) * self._discount(month) for month in months) / MONTHS_PER_YEAR

    def net_present_value_usd(self, realised: float = 1.0, budget_factor: float = 1.0) -> float:
        """Return today's value of what is added less the budget, when this fraction of it comes true."""
        value = realised * self.added_usd_per_year * self._present_of_a_dollar
        return value - budget_factor * self.case.investment.budget_usd

    @property
    def pays(self) -> bool:
        return self.net_present_value_usd() > 0

    @property
    def return_on_investment(self) -> float:
        """Return (added over the years - budget) / budget, not discounted."""
        return self.cumulative()[-1][1] / self.case.investment.budget_usd

    @property
    def payback_months(self) -> float | None:
        """Months from the first dollar until what is added has paid the budget; None: not within the years."""
        for (_, before), (month, after) in zip(self.cumulative(), self.cumulative()[1:], strict=False):
            if before < 0 <= after:
                return month - after / (after - before)
        return None

    @property
    def justified_budget_usd(self) -> float:
        """Largest budget at which what is added, discounted, is still the required return on top of the budget."""
        value = self.net_present_value_usd(budget_factor=0.0)
        return max(0.0, value) / (1.0 + self.case.investment.required_return_on_budget)

    @property
    def compute_budget_usd(self) -> float:
        return self.case.investment.budget_usd * self.case.investment.compute_fraction

    def cumulative(self) -> list[tuple[float, float]]:
        """Return (months, dollars so far), not discounted."""
        earned, points = -self.case.investment.budget_usd, []
        for month in range(self._months + 1):
            earned += self._part_of_gain(month) * self.added_usd_per_year / MONTHS_PER_YEAR
            points.append((float(month), earned))
        return points

    # What if?

    def with_input(self, path: str, value: float) -> "Answers":
        return answers_of(self.case.changed(path, value))

    def break_even_of(self, path: str, low: float = 0.001, high: float = 1.0) -> float | None:
        """Return the fraction at which the budget begins to pay, or ceases to; None: at none between the two."""
        is_low, is_high = (self.with_input(path, value).pays for value in (low, high))
        if is_low == is_high:
            return None
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            low, high = (middle, high) if self.with_input(path, middle).pays == is_low else (low, middle)
        return high

    @functools.cached_property
    def turns(self) -> dict[str, float | None]:
        """The accepted fraction of each model at which the verdict turns, by the input's name."""
        return {
            path: self.break_even_of(path) for path in (f"{name}.accepted_fraction" for name in self.case.candidates)
        }

    @functools.cached_property
    def swings(self) -> list[Swing]:
        """Return how far each input moves the net present value within its range, the farthest first."""
        found = []
        for path in dict.fromkeys((*self.case.ranges, *_DECISIVE)):
            value, stated = float(input_at(self.case, path)), self.case.ranges.get(path)
            low, high = (1 - DEFAULT_RANGE) * value, (1 + DEFAULT_RANGE) * value
            if path.endswith("_fraction"):
                high = min(high, 1.0)
            if stated and (stated.low, stated.high) != (None, None):
                low, high = (value if end is None else end for end in (stated.low, stated.high))
            low_usd, high_usd = (self.with_input(path, end).net_present_value_usd() for end in (low, high))
            found.append(Swing(path, low, high, low_usd, high_usd, stated is not None))
        return sorted(found, key=lambda swing: -abs(swing.high_usd - swing.low_usd))

    def table_of(self, fractions: Sequence[float]) -> list[list[float]]:
        """Return the net present value by the custom model's accepted fraction (rows) and the open one's (columns)."""
        rows = [self.with_input("custom.accepted_fraction", fraction) for fraction in fractions]
        name = "pretrained.accepted_fraction"
        return [[row.with_input(name, fraction).net_present_value_usd() for fraction in fractions] for row in rows]


_DECISIVE = (
    *("custom.accepted_fraction", "pretrained.accepted_fraction", "review_usd_per_picture"),
    *("investment.budget_usd", "generation.busy_fraction", "uses.0.images_per_year"),
)


def answers_of(case: BusinessCase) -> Answers:
    """Return every derived number. Raises CostError for an instance type whose price or speed is not known."""
    prices, rates = load_prices(), load_rates()
    made = case.generation
    host, model = instance(made.instance_type), declared_model(made.model)
    gpu = gpu_of(host, "generation.instance_type")
    rate = rates.generate_rate(model, gpu, made.resolution_px, 2 * made.inference_steps, "float16")
    hourly = prices.instance_hour_usd(made.instance_type)
    pictures = rate.samples_per_s * host.ranks * SECONDS_PER_HOUR * made.busy_fraction
    training = prices.instance_hour_usd(case.investment.training_instance_type)
    return Answers(case, hourly / pictures, hourly, pictures, training)
