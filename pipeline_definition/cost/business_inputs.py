"""The inputs of a business case, as a YAML file holds them. Reads that file; writes nothing.

business_case.yaml, the worked example, says of each what it is.
"""

from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import Field, model_validator

from params.arguments import validated
from params.files import read_text
from params.model import Model
from params.strict_yaml import StrictLoader
from pipeline_definition.cost.training import CostError

EXAMPLE_FILE = Path(__file__).with_name("business_case.yaml")


class Use(Model):
    name: str
    images_per_year: float = Field(ge=0)
    """Accepted pictures."""
    usd_per_image_today: float = Field(ge=0)
    hours_per_image_today: float = Field(ge=0)
    """From order to delivery, now."""
    hours_per_image_with_model: float = Field(ge=0)
    usd_per_hour_saved: float = Field(0.0, ge=0)
    revenue_usd_per_year: float = Field(ge=0)


class Candidate(Model):
    """One kind of model: what it costs to have, how often its pictures are taken, and its evaluation."""

    training_usd: float = Field(0.0, ge=0)
    data_usd: float = Field(0.0, ge=0)
    team_usd: float = Field(0.0, ge=0)
    setup_usd: float = Field(0.0, ge=0)
    upkeep_usd_per_year: float = Field(0.0, ge=0)
    """Retraining, and the people who watch over it."""
    licence_usd_per_year: float = Field(0.0, ge=0)
    usd_per_picture: float | None = Field(None, ge=0)
    """What somebody else's endpoint takes for a generated picture; left out: our own endpoint draws."""
    accepted_fraction: float = Field(gt=0, le=1)
    wrong_fraction: float = Field(0.0, ge=0, le=1)
    """Of the pictures taken, those that have to be withdrawn later."""
    failure_probability: float = Field(0.0, ge=0, le=1)
    fid: float | None = Field(None, ge=0)
    clip_score: float | None = Field(None, ge=-1, le=1)

    def fixed_usd(self, years: float) -> float:
        """Return what it costs over the years before the first picture."""
        once = self.training_usd + self.data_usd + self.team_usd + self.setup_usd
        return once + (self.upkeep_usd_per_year + self.licence_usd_per_year) * years


class Generation(Model):
    instance_type: str
    model: str = "Stable Diffusion 2"
    resolution_px: int = Field(ge=8, multiple_of=8)
    inference_steps: int = Field(ge=1)
    busy_fraction: float = Field(gt=0, le=1)


class Investment(Model):
    """The return that is expected, and what is to be spent for it."""

    return_usd_per_year_today: float = Field(ge=0)
    return_usd_per_year_expected: float = Field(ge=0)
    budget_usd: float = Field(gt=0)
    """Spent at the beginning."""
    compute_fraction: float = Field(gt=0, le=1)
    years: int = Field(ge=1, le=30)
    """How far ahead is counted, from the first dollar on."""
    months_until_return: int = Field(0, ge=0)
    ramp_up_months: int = Field(0, ge=0)
    discount_rate: float = Field(gt=-1, le=10)
    required_return_on_budget: float = Field(ge=0)
    training_instance_type: str
    """The compute budget is also given in hours of this type."""


class InputRange(Model):
    """Where an input comes from, and how far it may be off."""

    low: float | None = None
    high: float | None = None
    source: str = ""


class BusinessCase(Model):
    """The inputs: of question 1 the uses, of question 2 the candidates, of question 3 the investment."""

    company: str
    uses: list[Use] = Field(min_length=1)
    api: Candidate | None = None
    pretrained: Candidate
    fine_tuned: Candidate | None = None
    """The open model, trained further on our own pictures."""
    custom: Candidate
    review_usd_per_picture: float = Field(ge=0)
    usd_per_wrong_picture: float = Field(0.0, ge=0)
    generation: Generation
    investment: Investment
    ranges: dict[str, InputRange] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _ranges_are_of_numbers_that_are_there(self) -> Self:
        for path, about in self.ranges.items():
            value = input_at(self, path)
            if not isinstance(value, (int, float)):
                raise ValueError(f"ranges: {path} is no number of this file")
            if not (about.low is None or about.low <= value) or not (about.high is None or about.high >= value):
                raise ValueError(f"ranges: {path} is {value:g}, outside its own range")
        return self

    @property
    def candidates(self) -> dict[str, Candidate]:
        """The models that there are to choose from, by name, the one that takes least money first."""
        named = {"api": self.api, "pretrained": self.pretrained, "fine_tuned": self.fine_tuned, "custom": self.custom}
        there = {name: candidate for name, candidate in named.items() if candidate}
        return dict(sorted(there.items(), key=lambda item: item[1].fixed_usd(self.investment.years)))

    def changed(self, path: str, value: float) -> "BusinessCase":
        changed: BusinessCase = _changed(self, path.split("."), value)
        return changed


def input_at(case: Model, path: str) -> Any:
    """Return the input of a name such as custom.accepted_fraction or uses.0.images_per_year; None: there is none."""
    value: Any = case
    for key in path.split("."):
        if isinstance(value, list):
            value = value[int(key)] if key.isdigit() and int(key) < len(value) else None
        else:
            value = getattr(value, key, None)
    return value


def _changed(value: Any, keys: list[str], new: float) -> Any:
    key, *rest = keys
    if isinstance(value, list):
        return [_changed(item, rest, new) if str(at) == key else item for at, item in enumerate(value)]
    return value.model_copy(update={key: _changed(getattr(value, key), rest, new) if rest else new})


def load_case(path: Path) -> BusinessCase:
    """Read the inputs. Raises CostError that names the file and the key."""
    try:
        values = yaml.load(read_text(path, CostError), Loader=StrictLoader)  # noqa: S506 (stricter than SafeLoader)
    except yaml.YAMLError as error:
        raise CostError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    return validated(BusinessCase, values, str(path), CostError)
