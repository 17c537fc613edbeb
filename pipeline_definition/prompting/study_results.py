"""What a study shows: settings ranked by CLIP score, and what each modifier, scale, step count and sampler changes.

Reads scored trials; writes nothing. Intervals are 95 % bootstrap percentiles (Efron 1979) over the prompts, since the
pictures of one prompt are alike; differences are paired: the same prompts and seeds on both sides.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from pipeline_definition.prompting.bootstrap import Estimate, estimate, resamples
from pipeline_definition.prompting.study_plan import Grid, Setting, StudyPicture, StudyPlan

RESAMPLES: Final = 1000
K = TypeVar("K")

FACTORS: Final = ("modifier", "guidance_scale", "steps", "sampler")


@dataclass(frozen=True)
class ScoredTrial:
    """A picture with its score."""

    trial: StudyPicture
    picture: Path
    clip_score: float
    """Cosine with the prompt as it was written, without the modifier."""


@dataclass(frozen=True)
class RankedSetting:
    """A setting in the ranking."""

    setting: Setting
    score: Estimate
    behind_best: Estimate
    """The best setting's score minus this one's."""
    as_good: bool
    """The study cannot tell it from the best one."""


@dataclass(frozen=True)
class Effect:
    """What one value of a factor changes, all else being equal."""

    factor: str
    value: str
    score: Estimate
    change: Estimate | None
    """Against the factor's first value; None for that one."""


@dataclass(frozen=True)
class Results:
    """What the study shows."""

    ranking: tuple[RankedSetting, ...]
    """Best first."""
    effects: tuple[Effect, ...]

    @property
    def best(self) -> RankedSetting:
        """The highest mean score."""
        return self.ranking[0]

    @property
    def cheapest(self) -> RankedSetting:
        """The fewest UNet calls among those that the study cannot tell from the best."""
        return min((entry for entry in self.ranking if entry.as_good), key=lambda entry: entry.setting.unet_calls)

    @property
    def worst(self) -> RankedSetting:
        """The lowest mean score."""
        return self.ranking[-1]

    def of(self, setting: Setting) -> RankedSetting:
        """Return a setting's place."""
        return next(entry for entry in self.ranking if entry.setting == setting)


def results(plan: StudyPlan, scored: Sequence[ScoredTrial]) -> Results:
    """Rank the settings and compare the factors' values."""
    resampled = resamples(len(plan.prompts), RESAMPLES)
    by_setting = {
        setting: _by_prompt(plan, group) for setting, group in _grouped(scored, lambda item: item.trial.setting).items()
    }
    best = max(by_setting, key=lambda setting: statistics.mean(by_setting[setting]))
    ranking = [_ranked(setting, values, by_setting[best], resampled) for setting, values in by_setting.items()]
    ranking.sort(key=lambda entry: -entry.score.mean)
    return Results(tuple(ranking), tuple(_effects(plan, scored, resampled)))


def _ranked(
    setting: Setting, values: Sequence[float], best: Sequence[float], resampled: Sequence[Sequence[int]]
) -> RankedSetting:
    behind = estimate([other - own for other, own in zip(best, values, strict=True)], resampled)
    return RankedSetting(setting, estimate(values, resampled), behind, as_good=behind.low <= 0)


def _effects(plan: StudyPlan, scored: Sequence[ScoredTrial], resampled: Sequence[Sequence[int]]) -> Iterable[Effect]:
    for factor, levels in zip(FACTORS, _levels(plan.grid), strict=True):
        groups = _grouped(scored, lambda item, factor=factor: getattr(item.trial.setting, factor))  # type: ignore[misc]
        values = {level: _by_prompt(plan, groups[level]) for level in levels}
        first = values[levels[0]]
        for level, own in values.items():
            change = None
            if level != levels[0]:
                change = estimate([value - base for value, base in zip(own, first, strict=True)], resampled)
            text = f"{level:g}" if isinstance(level, float) else str(level)
            yield Effect(factor, text, estimate(own, resampled), change)


def _levels(grid: Grid) -> tuple[Sequence[object], ...]:
    return (grid.modifiers, grid.guidance_scales, grid.steps, grid.samplers)


def _grouped(scored: Sequence[ScoredTrial], key: Callable[[ScoredTrial], K]) -> Mapping[K, list[ScoredTrial]]:
    groups: dict[K, list[ScoredTrial]] = defaultdict(list)
    for item in scored:
        groups[key(item)].append(item)
    return groups


def _by_prompt(plan: StudyPlan, scored: Sequence[ScoredTrial]) -> list[float]:
    """Return the mean score of each prompt, in the plan's order."""
    groups = _grouped(scored, lambda item: item.trial.prompt)
    return [statistics.mean(item.clip_score for item in groups[prompt]) for prompt in plan.prompts]
