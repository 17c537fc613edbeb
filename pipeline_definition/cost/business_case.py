"""The arithmetic of a business case: three questions, answered from a file of inputs.

Reads inputs, prices.yaml and rates.yaml; writes nothing.

    sd-pipeline business-case --inputs my_case.yaml --out business_case
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline_definition.cost.business_inputs import BusinessCase, Candidate, Investment, Use
from pipeline_definition.cost.jobs import SECONDS_PER_HOUR
from pipeline_definition.cost.prices import load_prices
from pipeline_definition.cost.rates import load_rates
from pipeline_definition.cost.workload import declared_model
from pipeline_definition.jobs.instances import instance

MONTHS_PER_YEAR = 12
REALISED = (0.05, 0.1, 0.25, 0.5, 0.75, 1.0)
BUDGET_FACTORS = (0.5, 1.0, 2.0)


@dataclass(frozen=True)
class UseAnswer:
    """What a model would do for one use."""

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
class Answers:
    """Every derived number."""

    case: BusinessCase
    generation_usd_per_picture: float
    endpoint_usd_per_hour: float
    pictures_per_hour: float
    training_instance_usd_per_hour: float
    uses: tuple[UseAnswer, ...]

    # Question 2.

    def usd_per_accepted_image(self, candidate: Candidate) -> float:
        """Return generating and looking at as many pictures as one accepted takes."""
        return (self.generation_usd_per_picture + self.case.review_usd_per_picture) / candidate.accepted_fraction

    @property
    def images(self) -> float:
        """Accepted pictures over the years, of every use."""
        return self.case.investment.years * sum(use.images_per_year for use in self.case.uses)

    def total_usd(self, candidate: Candidate, images: float) -> float:
        """Return what this many accepted pictures cost over the years, the model included."""
        return candidate.fixed_usd(self.case.investment.years) + images * self.usd_per_accepted_image(candidate)

    @property
    def break_even_images(self) -> float | None:
        """Accepted pictures over the years from which the custom model is cheaper; None: never."""
        years = self.case.investment.years
        dearer = self.case.custom.fixed_usd(years) - self.case.pretrained.fixed_usd(years)
        saved = self.usd_per_accepted_image(self.case.pretrained) - self.usd_per_accepted_image(self.case.custom)
        if dearer <= 0 and saved >= 0:
            return 0.0
        return dearer / saved if saved > 0 else None

    @property
    def custom_is_cheaper(self) -> bool:
        """Tell whether it is at the volume of the uses."""
        return self.total_usd(self.case.custom, self.images) < self.total_usd(self.case.pretrained, self.images)

    # Question 3.

    @property
    def _investment(self) -> Investment:
        return self.case.investment

    @property
    def _months(self) -> int:
        return self._investment.years * MONTHS_PER_YEAR

    @property
    def gain_usd_per_year(self) -> float:
        """Return expected over the return of today."""
        return self._investment.return_usd_per_year_expected - self._investment.return_usd_per_year_today

    @property
    def uses_usd_per_year(self) -> float:
        """Return what question 1 finds, to check the expected return with."""
        return sum(answer.gain_usd_per_year for answer in self.uses)

    def net_present_value_usd(self, realised: float = 1.0, budget_factor: float = 1.0) -> float:
        """Return the gain's value today less the budget, when this fraction of the gain comes true.

        Sum over months m of gain / 12 / (1 + r)^(m / 12), m counted from the first dollar, to the end of each month.
        """
        months = range(self._investment.months_until_return + 1, self._months + 1)
        rate = 1.0 + self._investment.discount_rate
        factor: float = sum(rate ** (-month / MONTHS_PER_YEAR) for month in months)
        gain = realised * self.gain_usd_per_year / MONTHS_PER_YEAR
        return gain * factor - budget_factor * self._investment.budget_usd

    @property
    def return_on_investment(self) -> float:
        """Return (gain over the years - budget) / budget, not discounted."""
        budget = self._investment.budget_usd
        earning_months = max(0, self._months - self._investment.months_until_return)
        return (self.gain_usd_per_year * earning_months / MONTHS_PER_YEAR - budget) / budget

    @property
    def payback_months(self) -> float | None:
        """Months from the first dollar until the gain has paid the budget; None: not within the years."""
        if self.gain_usd_per_year <= 0:
            return None
        earning = self._investment.budget_usd / self.gain_usd_per_year * MONTHS_PER_YEAR
        months = self._investment.months_until_return + earning
        return months if months <= self._months else None

    @property
    def break_even_realised(self) -> float | None:
        """Fraction of the gain that has to come true for a net present value of zero; None: no gain pays it."""
        value = self.net_present_value_usd() + self._investment.budget_usd
        return self._investment.budget_usd / value if value > 0 else None

    @property
    def justified_budget_usd(self) -> float:
        """Largest budget at which the discounted gain is still the required return on top of the budget itself."""
        value = self.net_present_value_usd() + self._investment.budget_usd
        return max(0.0, value) / (1.0 + self._investment.required_return_on_budget)

    @property
    def compute_budget_usd(self) -> float:
        """Compute's part of the budget."""
        return self._investment.budget_usd * self._investment.compute_fraction

    def cumulative(self) -> list[tuple[float, float]]:
        """Return (months, dollars so far), not discounted."""
        monthly, start = self.gain_usd_per_year / MONTHS_PER_YEAR, self._investment.months_until_return
        months, budget = range(self._months + 1), self._investment.budget_usd
        return [(float(month), monthly * max(0, month - start) - budget) for month in months]


def answers_of(case: BusinessCase) -> Answers:
    """Return every derived number. Raises CostError for an instance type whose price or speed is not known."""
    prices, rates = load_prices(), load_rates()
    made = case.generation
    host, name, model = instance(made.instance_type), "generation.instance_type", declared_model(made.model)
    rate = rates.generate_rate(model, host, made.resolution_px, 2 * made.inference_steps, "float16", name)
    hourly = prices.instance_hour_usd(made.instance_type)
    pictures = rate.samples_per_s * host.ranks * SECONDS_PER_HOUR * made.busy_fraction
    picture_usd = hourly / pictures
    # Of the two candidates, the one whose accepted pictures cost less each.
    accepted = max(case.custom.accepted_fraction, case.pretrained.accepted_fraction)
    unit = (picture_usd + case.review_usd_per_picture) / accepted
    uses = []
    for use in case.uses:
        # What is not made today has no cost to save: its pictures cost what they cost.
        saved_usd = use.usd_per_image_today - unit
        saved_h = max(0.0, use.hours_per_image_today - use.hours_per_image_with_model)
        uses.append(UseAnswer(use, use.images_per_year * saved_usd, use.images_per_year * saved_h))
    training = prices.instance_hour_usd(case.investment.training_instance_type)
    return Answers(case, picture_usd, hourly, pictures, training, tuple(uses))
