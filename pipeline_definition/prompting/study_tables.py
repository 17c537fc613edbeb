"""The study's figures for programs: table.csv has a line for each picture, study.json everything."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from params.files import write_text
from pipeline_definition.prompting.bootstrap import Estimate
from pipeline_definition.prompting.study_plan import StudyPlan
from pipeline_definition.prompting.study_results import RankedSetting, Results, ScoredTrial

COLUMNS: Final = (
    "prompt",
    "seed",
    "modifier",
    "guidance_scale",
    "steps",
    "sampler",
    "unet_calls",
    "clip_score",
    "picture",
)


@dataclass(frozen=True)
class StudyProvenance:
    """What the study was made with."""

    endpoint: str
    model: str
    clip: str
    """SHA-256 of the CLIP's folder."""


def write_tables(
    folder: Path, plan: StudyPlan, scored: Sequence[ScoredTrial], found: Results, about: StudyProvenance
) -> None:
    """Write table.csv and study.json, each whole or not at all."""
    rows = [_row(item, folder) for item in scored]
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, COLUMNS)
    writer.writeheader()
    writer.writerows(rows)
    write_text(folder / "table.csv", file.getvalue())
    document = {
        **asdict(about),
        "prompts": plan.prompts,
        "seeds": plan.seeds,
        "best": _entry(found.best),
        "cheapest_as_good": _entry(found.cheapest),
        "ranking": [_entry(entry) for entry in found.ranking],
        "effects": [
            {
                "factor": effect.factor,
                "value": effect.value,
                "clip_score": _estimate(effect.score),
                "change": _estimate(effect.change) if effect.change else None,
            }
            for effect in found.effects
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
