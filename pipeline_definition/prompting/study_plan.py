"""What a prompt study draws: each prompt, with each modifier, at each guidance scale, step count and sampler.

Reads a file of prompts, one a line; writes nothing. '#' begins a comment, and `# kind: colours` says of what kind the
prompts below it are, for what is told by kind of prompt.
"""

import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from params.files import read_text
from pipeline_definition.errors import OperatorError

T = TypeVar("T")

PLAIN: Final = "{prompt}"
KIND: Final = "kind:"
MAX_TRIALS: Final = 20_000


class StudyError(OperatorError):
    """A study cannot be made: the message names the file or the option and the fix."""

    exit_status = 2


@dataclass(frozen=True, order=True)
class Setting:
    """How to draw: what a study compares."""

    modifier: str
    """What is made of the prompt, such as '{prompt}, oil painting'."""
    guidance_scale: float
    steps: int
    sampler: str

    @property
    def unet_calls(self) -> int:
        """Cost of one picture: guidance asks the network twice at each step."""
        return self.steps * (2 if self.guidance_scale > 1 else 1)

    @property
    def label(self) -> str:
        modifier = "prompt alone" if self.modifier == PLAIN else self.modifier
        return f"{modifier} | guidance {self.guidance_scale:g} | {self.steps} steps | {self.sampler}"


@dataclass(frozen=True)
class StudyPicture:
    prompt: str
    seed: int
    setting: Setting

    @property
    def request(self) -> dict[str, Any]:
        asked = asdict(self.setting)
        prompt = asked.pop("modifier").replace(PLAIN, self.prompt)
        return {"prompt": prompt, "seed": self.seed, **asked, "format": "png"}


@dataclass(frozen=True)
class Grid:
    """The settings of a study, by factor; the first of each is what the others are compared with."""

    modifiers: tuple[str, ...]
    guidance_scales: tuple[float, ...]
    steps: tuple[int, ...]
    samplers: tuple[str, ...]

    @property
    def settings(self) -> tuple[Setting, ...]:
        factors = itertools.product(self.modifiers, self.guidance_scales, self.steps, self.samplers)
        return tuple(Setting(*parts) for parts in factors)


@dataclass(frozen=True)
class StudyPlan:
    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    grid: Grid

    @property
    def trials(self) -> tuple[StudyPicture, ...]:
        """Every picture; neighbours share a shape, so that the endpoint can batch them."""
        drawn = itertools.product(self.grid.settings, self.prompts, self.seeds)
        return tuple(StudyPicture(prompt, seed, setting) for setting, prompt, seed in drawn)


def make_plan(prompts: Sequence[str], seeds: int, first_seed: int, grid: Grid) -> StudyPlan:
    """Return the plan; the plain prompt is always among the modifiers.

    Raises StudyError for an empty factor or more pictures than anyone would wait for.
    """
    named = {"--guidance": grid.guidance_scales, "--steps": grid.steps, "--sampler": grid.samplers}
    for option, values in {**named, "--seeds": range(seeds)}.items():
        if not values:
            raise StudyError(f"{option}: names nothing to try")
    # A modifier without {prompt} is put behind the prompt.
    modifiers = _unique((PLAIN, *(text if PLAIN in text else f"{PLAIN}, {text}" for text in grid.modifiers)))
    unique = Grid(modifiers, _unique(grid.guidance_scales), _unique(grid.steps), _unique(grid.samplers))
    plan = StudyPlan(_unique(prompts), tuple(range(first_seed, first_seed + seeds)), unique)
    count = len(plan.prompts) * len(plan.seeds) * len(unique.settings)
    if count > MAX_TRIALS:
        raise StudyError(f"the study is {count:,} pictures, at most {MAX_TRIALS:,} make sense: name fewer values")
    return plan


def read_prompts(path: Path) -> dict[str, str]:
    """Read prompts, each with its kind: empty above the first. Raises StudyError for a file that holds none."""
    prompts, kind = dict[str, str](), ""
    for line in map(str.strip, read_text(path, StudyError).splitlines()):
        if line and not line.startswith("#"):
            prompts.setdefault(line, kind)
        elif (comment := line.lstrip("# ")).startswith(KIND):
            kind = comment.removeprefix(KIND).strip()
    if not prompts:
        raise StudyError(f"{path}: holds no prompts; one a line")
    return prompts


def _unique(values: Sequence[T]) -> tuple[T, ...]:
    return tuple(dict.fromkeys(values))
