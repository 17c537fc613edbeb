"""What a study shows: settings ranked by CLIP score, and what each modifier, scale, step count and sampler changes.

Reads scored trials; writes their figures for programs: table.csv has a line for each picture, study.json everything.
Intervals are 95 % bootstrap percentiles (Efron 1979) over the prompts, since the
pictures of one prompt are alike; differences are paired: the same prompts and seeds on both sides.
"""

from __future__ import annotations

import csv
import io
import json
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from params.files import write_text
from pipeline_definition.prompting.bootstrap import Estimate, estimate, resamples
from pipeline_definition.prompting.study_plan import Setting, StudyPicture, StudyPlan

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


@dataclass(frozen=True)
class StudyProvenance:
    """What the study was made with."""

    endpoint: str
    model: str
    clip: str
    """SHA-256 of the CLIP's folder."""


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
    for factor, levels in zip(FACTORS, vars(plan.grid).values(), strict=True):
        groups = _grouped(scored, lambda item, factor=factor: getattr(item.trial.setting, factor))  # type: ignore[misc]
        values = {level: _by_prompt(plan, groups[level]) for level in levels}
        first = values[levels[0]]
        for level, own in values.items():
            change = None
            if level != levels[0]:
                change = estimate([value - base for value, base in zip(own, first, strict=True)], resampled)
            text = f"{level:g}" if isinstance(level, float) else str(level)
            yield Effect(factor, text, estimate(own, resampled), change)


def _grouped(scored: Sequence[ScoredTrial], key: Callable[[ScoredTrial], K]) -> Mapping[K, list[ScoredTrial]]:
    groups: dict[K, list[ScoredTrial]] = defaultdict(list)
    for item in scored:
        groups[key(item)].append(item)
    return groups


def _by_prompt(plan: StudyPlan, scored: Sequence[ScoredTrial]) -> list[float]:
    """Return the mean score of each prompt, in the plan's order."""
    groups = _grouped(scored, lambda item: item.trial.prompt)
    return [statistics.mean(item.clip_score for item in groups[prompt]) for prompt in plan.prompts]


def write_tables(
    folder: Path, plan: StudyPlan, scored: Sequence[ScoredTrial], outcome: Results, about: StudyProvenance
) -> None:
    """Write table.csv and study.json, each whole or not at all."""
    rows = [_row(item, folder) for item in scored]
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    write_text(folder / "table.csv", file.getvalue())
    document = {
        **asdict(about),
        "prompts": plan.prompts,
        "seeds": plan.seeds,
        "best": _entry(outcome.best),
        "cheapest_as_good": _entry(outcome.cheapest),
        "ranking": [_entry(entry) for entry in outcome.ranking],
        "effects": [
            {
                "factor": effect.factor,
                "value": effect.value,
                "clip_score": _estimate(effect.score),
                "change": _estimate(effect.change) if effect.change else None,
            }
            for effect in outcome.effects
        ],
        "pictures": rows,
    }
    write_text(folder / "study.json", json.dumps(document, indent=1, ensure_ascii=False))


def _row(item: ScoredTrial, folder: Path) -> dict[str, Any]:
    setting = item.trial.setting
    return {
        "prompt": item.trial.prompt,
        "seed": item.trial.seed,
        **asdict(setting),
        "unet_calls": setting.unet_calls,
        "clip_score": round(item.clip_score, 6),
        "picture": item.picture.relative_to(folder).as_posix(),
    }


def _entry(entry: RankedSetting) -> dict[str, Any]:
    return {
        **asdict(entry.setting),
        "unet_calls": entry.setting.unet_calls,
        "clip_score": _estimate(entry.score),
        "behind_best": _estimate(entry.behind_best),
        "as_good": entry.as_good,
    }


def _estimate(value: Estimate) -> dict[str, float]:
    return {name: round(number, 6) for name, number in asdict(value).items()}
