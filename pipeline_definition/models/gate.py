"""The quality gate as the definition states it, and whether the run's metrics meet it, line by line."""

import operator
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from params.layout import CLIP_SCORE, CLIP_SCORE_MARGIN, FID_ABOVE_UNTRAINED, UNKNOWN_BOUND, WARNINGS
from pipeline_definition.artifacts import Artifacts
from pipeline_definition.models.metric_names import metric_name
from pipeline_definition.pages.charts import Reading
from pipeline_definition.pages.formats import DASH, beside, figure, number, setting

_METRIC_PATH = re.compile(r"^metrics\.([^.]+)\.(value|low|high)$")
# What a condition asks, in words, and the comparison itself.
_SIGNS: Mapping[str, tuple[str, Callable[[float, float], bool]]] = {
    "LessThanOrEqualTo": ("at most", operator.le),
    "LessThan": ("below", operator.lt),
    "GreaterThanOrEqualTo": ("at least", operator.ge),
    "GreaterThan": ("above", operator.gt),
}
MET, MISSED = "✓ met", "✕ missed"
# They say when the CLIP score is judged and what is judged in its place: `warnings` has it in words.
_FALLBACKS = {CLIP_SCORE_MARGIN, FID_ABOVE_UNTRAINED}


@dataclass(frozen=True)
class Metric(Reading):
    confidence: float | None = None

    @property
    def interval(self) -> str:
        """Return `8.2 to 10.3`, with the decimals of the value; nothing where it has none."""
        if self.low is None or self.high is None:
            return ""
        if self.high >= UNKNOWN_BOUND:
            return "too few pictures to tell"
        return f"{beside(self.low, self.value)} to {beside(self.high, self.value)}"


@dataclass(frozen=True)
class Threshold:
    metric: str
    sign: str
    """at most, below, at least or above."""
    limit: float
    part: str = "value"
    """What of the metric is judged: its value, or the low or high end of its interval."""

    def __str__(self) -> str:
        """Return `at most 25`, or `high end at most 0.5` where an end of the interval is judged."""
        return f"{'' if self.part == 'value' else f'{self.part} end '}{self.sign} {setting(self.limit)}"

    def is_met_by(self, measured: Metric) -> bool:
        """Return whether a metric passes; one without the end of the interval that is judged does not."""
        judged = getattr(measured, self.part)
        return judged is not None and dict(_SIGNS.values())[self.sign](judged, self.limit)


def metric(metrics: Mapping[str, Any] | None, name: str) -> Metric | None:
    """Return an entry of metrics.json, or None where it is missing or not a number."""
    entry = ((metrics or {}).get("metrics") or {}).get(name)
    if not isinstance(entry, dict) or (value := number(entry.get("value"))) is None:
        return None
    return Metric(value, *(number(entry.get(key)) for key in ("low", "high", "confidence")))


def thresholds(definition: Mapping[str, Any], parameters: Mapping[str, Any]) -> dict[str, Threshold]:
    """Return what the definition's conditions ask, by metric."""
    asked = {}
    gates = (step for step in definition.get("Steps", []) if step.get("Type") == "Condition")
    for condition in (one for step in gates for one in _flat(step["Arguments"].get("Conditions", []))):
        left, right = condition.get("LeftValue"), condition.get("RightValue")
        path = left.get("Std:JsonGet", {}).get("Path", "") if isinstance(left, dict) else ""
        name, sign = _METRIC_PATH.match(path), _SIGNS.get(str(condition.get("Type")))
        if isinstance(right, dict):
            right = parameters.get(str(right.get("Get", "")).removeprefix("Parameters."))
        limit = number(right)
        if name is not None and sign is not None and limit is not None and name[1] not in _FALLBACKS:
            asked[name[1]] = Threshold(name[1], sign[0], limit, name[2])
    return asked


def asked_of(artifacts: Artifacts) -> dict[str, Threshold]:
    """Return what the gate asks of a run, of the metrics that it judges.

    Where the CLIP cannot judge these pictures, an FID below the untrained model's stands in for the CLIP score.
    """
    asked, margin = thresholds(artifacts.definition, artifacts.parameters), metric(artifacts.metrics, CLIP_SCORE_MARGIN)
    if margin is not None and margin.low is not None and margin.low <= 0 and CLIP_SCORE in asked:
        del asked[CLIP_SCORE]
        asked[FID_ABOVE_UNTRAINED] = Threshold(FID_ABOVE_UNTRAINED, "below", 0.0, "high")
    return asked


def gate_lines(artifacts: Artifacts) -> dict[str, tuple[str, str, str, str, str]]:
    """Return the scorecard's lines by metric: its name, value, interval and limit, and whether it is met."""
    lines = {}
    for key, threshold in (asked_of(artifacts) if artifacts.metrics else {}).items():
        found = metric(artifacts.metrics, key)
        value, interval = (figure(found.value), found.interval or DASH) if found else (DASH, DASH)
        judged = MET if found and threshold.is_met_by(found) else MISSED
        lines[key] = (metric_name(key), value, interval, str(threshold), judged)
    return lines


def warnings(metrics: Mapping[str, Any] | None) -> list[str]:
    """Return the sentences without which no verdict on these metrics may be shown."""
    return [str(sentence) for sentence in (metrics or {}).get(WARNINGS) or ()]


def _flat(conditions: Any) -> Iterator[Mapping[str, Any]]:
    for condition in conditions:
        if condition.get("Type") in ("And", "Or"):
            yield from _flat(condition.get("Conditions", []))
        else:
            yield condition
