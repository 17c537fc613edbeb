"""What a study shows: settings ranked by CLIP score, and what each modifier, scale, step count and sampler changes.

Reads scored trials; writes their figures for programs: table.csv has a line for each picture, study.json everything.
Intervals are over the prompts (`intervals`), since the pictures of one prompt are alike; differences are paired: the
same prompts and seeds on both sides. The best of many settings is best by luck as well: what to expect of it on other
prompts stands beside what it scored on these.
"""

import csv
import io
import json
import operator
import statistics
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np

from params.files import write_text
from pipeline_definition.prompting.intervals import Estimate, estimate, reservation, shrunk
from pipeline_definition.prompting.study_plan import Setting, StudyPicture, StudyPlan

K = TypeVar("K")

FACTORS: Final = ("modifier", "guidance_scale", "steps", "sampler")


@dataclass(frozen=True)
class ScoredTrial:
    trial: StudyPicture
    picture: Path
    clip_score: float
    """Cosine with the prompt as it was written, without the modifier."""


@dataclass(frozen=True)
class RankedSetting:
    setting: Setting
    clip_score: Estimate
    expected: float
    """What to expect of it on other prompts: its score, drawn towards the mean of all settings."""
    behind_best: Estimate
    """The best setting's score minus this one's; the intervals of all settings hold together."""
    as_good: bool
    """It is the best one, or the study cannot tell it from that."""


@dataclass(frozen=True)
class Effect:
    """What one value of a factor changes, all else being equal."""

    factor: str
    value: str
    clip_score: Estimate
    change: Estimate | None
    """Against the factor's first value; None for that one."""


@dataclass(frozen=True)
class Results:
    ranking: tuple[RankedSetting, ...]
    """Best first."""
    effects: tuple[Effect, ...]

    @property
    def best(self) -> RankedSetting:
        return self.ranking[0]

    @property
    def cheapest(self) -> RankedSetting:
        """The fewest network calls among those that the study cannot tell from the best."""
        return min((entry for entry in self.ranking if entry.as_good), key=lambda entry: entry.setting.unet_calls)

    @property
    def worst(self) -> RankedSetting:
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
    by_setting = _by_prompt(plan, scored, lambda setting: setting)
    expected = shrunk(np.array(list(by_setting.values())).T)
    best, others = max(by_setting.values(), key=statistics.fmean), max(1, len(by_setting) - 1)
    ranking = []
    for (setting, values), elsewhere in zip(by_setting.items(), expected.tolist(), strict=True):
        behind = estimate([other - own for other, own in zip(best, values, strict=True)], others)
        as_good = values is best or (behind.low is not None and behind.low <= 0)
        ranking.append(RankedSetting(setting, estimate(values), elsewhere, behind, as_good))
    ranking.sort(key=lambda entry: -entry.clip_score.mean)
    effects = []
    for factor, levels in zip(FACTORS, vars(plan.grid).values(), strict=True):
        of_level = _by_prompt(plan, scored, operator.attrgetter(factor))
        for level in levels:
            gaps = [value - base for value, base in zip(of_level[level], of_level[levels[0]], strict=True)]
            text, change = f"{level:g}" if isinstance(level, float) else str(level), estimate(gaps)
            effects.append(Effect(factor, text, estimate(of_level[level]), change if level != levels[0] else None))
    return Results(tuple(ranking), tuple(effects))


def _by_prompt(plan: StudyPlan, scored: Sequence[ScoredTrial], key: Callable[[Setting], K]) -> dict[K, list[float]]:
    """Return the mean score of each prompt, in the plan's order, by a part of the setting."""
    scores: dict[K, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for item in scored:
        scores[key(item.trial.setting)][item.trial.prompt].append(item.clip_score)
    return {part: [statistics.fmean(own[prompt]) for prompt in plan.prompts] for part, own in scores.items()}


def write_tables(
    folder: Path, plan: StudyPlan, scored: Sequence[ScoredTrial], outcome: Results, about: StudyProvenance
) -> None:
    rows = [
        {
            "prompt": item.trial.prompt,
            "seed": item.trial.seed,
            **asdict(item.trial.setting),
            "unet_calls": item.trial.setting.unet_calls,
            "clip_score": round(item.clip_score, 6),
            "picture": item.picture.relative_to(folder).as_posix(),
        }
        for item in scored
    ]
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    write_text(folder / "table.csv", file.getvalue())
    document = {
        **asdict(about),
        "prompts": plan.prompts,
        "seeds": plan.seeds,
        "reservation": reservation(len(plan.prompts)),
        "best": _entry(outcome.best),
        "cheapest_as_good": _entry(outcome.cheapest),
        "ranking": [_entry(entry) for entry in outcome.ranking],
        "effects": [asdict(effect) for effect in outcome.effects],
        "pictures": rows,
    }
    write_text(folder / "study.json", json.dumps(document, indent=1, ensure_ascii=False))


def _entry(entry: RankedSetting) -> dict[str, Any]:
    content = asdict(entry)
    return {**content.pop("setting"), "unet_calls": entry.setting.unet_calls, **content}
