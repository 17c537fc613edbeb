"""Models side by side: the same prompts and seeds to each, their pictures scored, timed and priced.

Reads endpoints, or the variants of one with their configuration, and the price file; writes nothing.

    sd-pipeline compare "a lighthouse at dusk" --prompts prompts.txt --endpoint sd-production
"""

import itertools
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from pipeline_definition.cost.prices import load_prices
from pipeline_definition.errors import OperatorError
from pipeline_definition.prompting.clip_scores import ScoringError, score_pictures
from pipeline_definition.prompting.endpoint import (
    Answer,
    DrawnPicture,
    Endpoint,
    configuration_of,
    connect,
    draw_patiently,
    is_address,
)
from pipeline_definition.prompting.intervals import Estimate, estimate
from pipeline_definition.session import Target

PATIENCE_S: Final = 120.0
SECONDS_PER_HOUR: Final = 3600.0


@dataclass(frozen=True)
class Contender:
    name: str
    endpoint: Endpoint
    instance_type: str = ""
    """The type of its instances; empty: not known."""
    usd_per_hour: float | None = None
    """Price of one of its instances; None: not known."""


@dataclass(frozen=True)
class Shot:
    prompt: str
    seed: int
    answer: Answer
    clip_score: float | None = None
    """Cosine of picture and prompt; None: not scored."""

    @property
    def picture(self) -> DrawnPicture:
        return self.answer.pictures[0]


@dataclass(frozen=True)
class Standing:
    contender: Contender
    shots: tuple[Shot, ...]
    """In the order of prompts and seeds, the same for every contender."""

    @property
    def clip_score(self) -> float | None:
        """Mean cosine of its pictures; None where they were not scored."""
        scores = [shot.clip_score for shot in self.shots if shot.clip_score is not None]
        return statistics.fmean(scores) if scores else None

    def latency_s(self, quantile: float) -> float:
        """Return the seconds within which this fraction of the answers came."""
        ordered = sorted(shot.answer.elapsed_s for shot in self.shots)
        return ordered[min(len(ordered) - 1, int(quantile * len(ordered)))]

    @property
    def render_s(self) -> float:
        """Mean seconds that the instance drew."""
        return statistics.fmean(shot.answer.render_s for shot in self.shots)

    @property
    def usd_per_image(self) -> float | None:
        """Dollars of the instance's time for a picture drawn alone; batches and idle hours are left out."""
        usd_per_hour = self.contender.usd_per_hour
        return None if usd_per_hour is None else usd_per_hour * self.render_s / SECONDS_PER_HOUR


@dataclass(frozen=True)
class Comparison:
    standings: tuple[Standing, ...]
    clip: str
    """Digest of the CLIP that scored; empty where none did."""
    note: str = ""
    """Why pictures were not scored."""

    def as_dict(self) -> dict[str, Any]:
        models = []
        for standing in self.standings:
            gap, wins = difference(self.standings[0], standing) or (None, 0)
            by = gap and {"value": gap.mean, "low": gap.low, "high": gap.high, "wins": wins}
            about = {
                "name": standing.contender.name,
                "instance_type": standing.contender.instance_type,
                "model": standing.shots[0].answer.model,
                "images": len(standing.shots),
                "clip_score": standing.clip_score,
                "clip_score_above_first": by,
                "latency_p50_s": standing.latency_s(0.5),
                "latency_p95_s": standing.latency_s(0.95),
                "render_s": standing.render_s,
                "usd_per_image": standing.usd_per_image,
            }
            models.append(about)
        return {"models": models, "clip": self.clip, "note": self.note}


def contenders_of(target: Callable[[], Target], endpoints: Sequence[str], variants: Sequence[str]) -> list[Contender]:
    """Return what is compared: several endpoints, by name or address, or the variants of one; `variants` chooses some.

    Raises OperatorError where that is fewer than two.
    """
    if len(endpoints) == 1 and not is_address(endpoints[0]):
        types = _instance_types(target(), endpoints[0])
        if unknown := [name for name in variants if name not in types]:
            raise OperatorError(f"endpoint {endpoints[0]} has no variant {unknown[0]!r}; it has {', '.join(types)}")
        contenders = [_priced(target(), endpoints[0], types[name], name) for name in variants or types]
    elif variants:
        raise OperatorError("--variant chooses among the variants of one endpoint: give one --endpoint, by its name")
    else:
        contenders = [
            Contender(name, connect(target, name))
            if is_address(name)
            else _priced(target(), name, next(iter(_instance_types(target(), name).values())))
            for name in endpoints
        ]
    if len(contenders) < 2:
        raise OperatorError(
            f"{', '.join(endpoints)}: one model alone cannot be compared; name a second --endpoint, or put the generic "
            "model next to it with `sd-pipeline promote latest --beside pretrained`"
        )
    return contenders


def compare(
    contenders: Sequence[Contender],
    prompts: Sequence[str],
    seeds: Sequence[int],
    request: dict[str, Any],
    evaluator_dir: Callable[[], Path],
) -> Comparison:
    """Let every contender draw every prompt from every seed, and score the pictures.

    Requests go out one at a time, by turns in changing order, so that all meet the same conditions; each contender
    first draws one picture that does not count. Without a CLIP to score with, the pictures stand unscored and the note
    says why.
    """
    asked = list(itertools.product(prompts, seeds))
    for contender in contenders:
        _draw(contender, *asked[0], request)
    shots: dict[str, list[Shot]] = {contender.name: [] for contender in contenders}
    for number, (prompt, seed) in enumerate(asked):
        turn = number % len(contenders)
        for contender in (*contenders[turn:], *contenders[:turn]):
            shots[contender.name].append(_draw(contender, prompt, seed, request))
    standings = tuple(Standing(contender, tuple(shots[contender.name])) for contender in contenders)
    try:
        return _scored(standings, evaluator_dir())
    except ScoringError as error:
        return Comparison(standings, "", str(error))


def difference(first: Standing, second: Standing) -> tuple[Estimate, int] | None:
    """Return by how much the second one's CLIP score is above the first one's, and in how many pictures it is.

    None where they were not scored, or are the same. Pairs are compared, so that what is hard about a prompt falls
    out; the interval is over the prompts.
    """
    values: dict[str, list[float]] = defaultdict(list)
    for a, b in zip(first.shots, second.shots, strict=True):
        if a.clip_score is not None and b.clip_score is not None:
            values[a.prompt].append(b.clip_score - a.clip_score)
    if first is second or not values:
        return None
    wins = sum(value > 0 for own in values.values() for value in own)
    return estimate([statistics.fmean(own) for own in values.values()]), wins


def _instance_types(target: Target, endpoint: str) -> dict[str, str]:
    variants = configuration_of(target, endpoint)["ProductionVariants"]
    return {variant["VariantName"]: variant.get("InstanceType", "") for variant in variants}


def _priced(target: Target, endpoint: str, instance_type: str, variant: str | None = None) -> Contender:
    usd_per_hour = load_prices().in_region(target.region, instance_type) or None
    return Contender(variant or endpoint, connect(lambda: target, endpoint, variant), instance_type, usd_per_hour)


def _draw(contender: Contender, prompt: str, seed: int, request: dict[str, Any]) -> Shot:
    asked = {**request, "prompt": prompt, "seed": seed}
    return Shot(prompt, seed, draw_patiently(contender.endpoint, asked, PATIENCE_S))


def _scored(standings: tuple[Standing, ...], evaluator_dir: Path) -> Comparison:
    """Score everything in one go: loading the CLIP takes longer than the pictures."""
    everything = [shot for standing in standings for shot in standing.shots]
    with tempfile.TemporaryDirectory() as folder:
        pairs = []
        for number, shot in enumerate(everything):
            path = Path(folder) / f"{number:06d}.{shot.picture.form}"
            path.write_bytes(shot.picture.content)
            pairs.append((path, shot.prompt))
        clip_scores = score_pictures(pairs, evaluator_dir)
    scores = iter(clip_scores.scores)
    scored = tuple(
        replace(standing, shots=tuple(replace(shot, clip_score=next(scores)) for shot in standing.shots))
        for standing in standings
    )
    return Comparison(scored, clip_scores.clip)
