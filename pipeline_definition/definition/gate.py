"""The QualityGate: a model that misses a threshold is neither registered nor deployed.

Two thresholds are always asked, on FID and CLIP score themselves. Where the parameter set asks for it, the model must
also be no worse than the generic pretrained one, or than the approved one, by more than a margin: judged on the upper
bound of the difference, so that a model passes when it is shown to be good enough, not when few pictures were drawn.

A CLIP that does not score real pictures higher with their own captions than with those of others cannot judge these
pictures. Then its score decides nothing, and the model must be shown to have a lower FID than the untrained one.
"""

from dataclasses import dataclass
from typing import Final

from sagemaker.core.workflow import conditions
from sagemaker.core.workflow.functions import Join, JsonGet
from sagemaker.mlops.workflow import ConditionStep, FailStep, ProcessingStep

from params import layout
from pipeline_definition.definition.blueprint import Blueprint
from pipeline_definition.definition.data import output_uri
from pipeline_definition.definition.evaluation import METRICS
from pipeline_definition.definition.parameters import Number, PipelineParameters

# In the order of parameter_names.MARGINS.
COMPARED: Final = (
    ("FID above the generic model's", layout.FID_ABOVE_PRETRAINED),
    ("CLIP score below the generic model's", layout.CLIP_SCORE_BELOW_PRETRAINED),
    ("FID above the approved model's", layout.FID_ABOVE_APPROVED),
    ("CLIP score below the approved model's", layout.CLIP_SCORE_BELOW_APPROVED),
)


@dataclass(frozen=True)
class Demand:
    """What the gate asks of one metric."""

    label: str
    """The metric in words, as a sentence begins with it."""
    metric: str
    threshold: Number
    part: str = "value"
    """`value`, or `low` or `high`: a bound of its interval."""
    at_least: bool = False

    def condition(self, evaluate: ProcessingStep) -> conditions.Condition:
        """Return the demand as SageMaker judges it."""
        kind = conditions.ConditionGreaterThanOrEqualTo if self.at_least else conditions.ConditionLessThanOrEqualTo
        return kind(left=metric(evaluate, self.metric, self.part), right=self.threshold)

    def words(self, evaluate: ProcessingStep) -> list[object]:
        """Return the demand with its number, interval and threshold, to be joined."""
        value, low, high = (metric(evaluate, self.metric, part).to_string() for part in ("value", "low", "high"))
        judged = {"value": "and", "low": "and its lower bound", "high": "and its upper bound"}[self.part]
        sign = "at least" if self.at_least else "at most"
        asked = f") {judged} must be {sign} {self.threshold.name} = "
        return [f"{self.label} is ", value, " (", low, " to ", high, asked, self.threshold.to_string(), "; "]


def metric(evaluate: ProcessingStep, name: str, part: str = "value") -> JsonGet:
    """Return one number of metrics.json, read when the pipeline runs."""
    return evaluated(evaluate, f"metrics.{name}.{part}")


def evaluated(evaluate: ProcessingStep, path: str) -> JsonGet:
    """Return one value of metrics.json by its path, read when the pipeline runs."""
    return JsonGet(step_name=evaluate.name, property_file=METRICS, json_path=path)


def demands(p: PipelineParameters) -> list[Demand]:
    """Return everything that the gate asks."""
    compared = zip(COMPARED, p.margins, strict=True)
    most, least = p.max_copies, p.min_following
    copies = [] if most is None else [Demand("Share of copies", layout.COPIES, most, part="high")]
    following = [] if least is None else [Demand("Prompt following", layout.PROMPT_FOLLOWING, least, "low", True)]
    return [
        Demand("FID", layout.FID, p.max_fid),
        Demand("CLIP score", layout.CLIP_SCORE, p.min_clip_score, at_least=True),
        *copies,
        *following,
        *(Demand(label, name, margin, part="high") for (label, name), margin in compared if margin is not None),
    ]


def gate_step(blueprint: Blueprint, evaluate: ProcessingStep, passed: list[object]) -> ConditionStep:
    """Return the condition with what follows on either side."""
    p = blueprint.parameters
    is_compared = any(margin is not None for margin in p.margins)
    return ConditionStep(
        name="QualityGate",
        description="FID at most MaxFid, CLIP score at least MinClipScore (where the CLIP cannot judge these pictures: "
        "FID below the untrained model's)"
        + (", and no worse than the models it is compared with" if is_compared else "")
        + (", and copies at most MaxCopies" if p.max_copies is not None else "")
        + (", and prompt following at least MinPromptFollowing" if p.min_following is not None else ""),
        conditions=[condition for demand in demands(p) for condition in _conditions(demand, evaluate)],
        if_steps=passed,
        else_steps=[gate_failed_step(blueprint, evaluate)],
    )


def _conditions(demand: Demand, evaluate: ProcessingStep) -> list[conditions.Condition]:
    """Return a demand as conditions that must all hold: the CLIP score's counts only where the CLIP can judge."""
    condition = demand.condition(evaluate)
    if demand.metric != layout.CLIP_SCORE:
        return [condition]
    margin = metric(evaluate, layout.CLIP_SCORE_MARGIN, "low")
    is_trained = conditions.ConditionLessThan(left=metric(evaluate, layout.FID_ABOVE_UNTRAINED, "high"), right=0.0)
    return [
        conditions.ConditionOr([condition, conditions.ConditionLessThanOrEqualTo(left=margin, right=0.0)]),
        conditions.ConditionOr([is_trained, conditions.ConditionGreaterThan(left=margin, right=0.0)]),
    ]


def gate_failed_step(blueprint: Blueprint, evaluate: ProcessingStep) -> FailStep:
    """Return the step that ends the run with each number, its interval, its threshold, and where the pictures are."""
    margin = metric(evaluate, layout.CLIP_SCORE_MARGIN, "low").to_string()
    above = metric(evaluate, layout.FID_ABOVE_UNTRAINED, "high").to_string()
    words = [word for demand in demands(blueprint.parameters) for word in demand.words(evaluate)]
    words += [
        "the CLIP can judge these pictures if ",
        margin,
        " is above 0; if not, FID above the untrained model's, at ",
    ]
    words += ["most ", above, ", must be below 0; ", "pictures: ", output_uri(evaluate, layout.EVALUATION)]
    return FailStep(name="GateFailed", error_message=Join(on="", values=["Quality gate missed: ", *words]))
