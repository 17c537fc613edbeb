"""The inputs of a business case, as a YAML file holds them. Reads that file; writes nothing.

business_case.yaml, the worked example, says of each what it is.
"""

from __future__ import annotations

from pathlib import Path

import yaml
from pydantic import Field, ValidationError

from params.arguments import describe
from params.files import read_text
from params.model import Model
from params.settings import StrictLoader
from pipeline_definition.cost.training import CostError

EXAMPLE_FILE = Path(__file__).with_name("business_case.yaml")


class Use(Model):
    """One place where pictures are made."""

    name: str
    images_per_year: float = Field(ge=0)
    """Accepted pictures."""
    usd_per_image_today: float = Field(ge=0)
    hours_per_image_today: float = Field(ge=0)
    """From order to delivery, now."""
    hours_per_image_with_model: float = Field(ge=0)
    revenue_usd_per_year: float = Field(ge=0)


class Candidate(Model):
    """One kind of model: what it costs to have, how often its pictures are taken, and its evaluation."""

    training_usd: float = Field(0.0, ge=0)
    data_usd: float = Field(0.0, ge=0)
    team_usd: float = Field(0.0, ge=0)
    setup_usd: float = Field(0.0, ge=0)
    upkeep_usd_per_year: float = Field(0.0, ge=0)
    accepted_fraction: float = Field(gt=0, le=1)
    """Generated pictures that a reviewer takes."""
    fid: float | None = Field(None, ge=0)
    clip_score: float | None = Field(None, ge=-1, le=1)

    def fixed_usd(self, years: float) -> float:
        """Return what it costs over the years before the first picture."""
        once = self.training_usd + self.data_usd + self.team_usd + self.setup_usd
        return once + self.upkeep_usd_per_year * years


class Generation(Model):
    """The endpoint that makes the pictures."""

    instance_type: str
    model: str = "Stable Diffusion 2"
    resolution_px: int = Field(ge=8, multiple_of=8)
    inference_steps: int = Field(ge=1)
    busy_fraction: float = Field(gt=0, le=1)
    """Of the hours that are paid for."""


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
    discount_rate: float = Field(gt=-1, le=10)
    required_return_on_budget: float = Field(ge=0)
    """Net gain that is asked for, in budgets."""
    training_instance_type: str
    """The compute budget is also given in hours of this type."""


class BusinessCase(Model):
    """The inputs: of question 1 the uses, of question 2 the two candidates, of question 3 the investment."""

    company: str
    uses: list[Use] = Field(min_length=1)
    custom: Candidate
    pretrained: Candidate
    review_usd_per_picture: float = Field(ge=0)
    """A person's look at one generated picture."""
    generation: Generation
    investment: Investment


def load_case(path: Path) -> BusinessCase:
    """Read the inputs. Raises CostError that names the file and the key."""
    try:
        values = yaml.load(read_text(path, CostError), Loader=StrictLoader)  # noqa: S506 (stricter than SafeLoader)
        return BusinessCase.model_validate(values)
    except yaml.YAMLError as error:
        raise CostError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    except ValidationError as error:
        raise CostError(f"{path}: {describe(error)}") from None
