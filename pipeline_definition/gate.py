"""The QualityGate: a model that misses a threshold is neither registered nor deployed."""

from __future__ import annotations

from sagemaker.core.workflow.conditions import ConditionGreaterThanOrEqualTo, ConditionLessThanOrEqualTo
from sagemaker.core.workflow.functions import Join, JsonGet
from sagemaker.mlops.workflow import ConditionStep, FailStep, ProcessingStep

from params.layout import CLIP_SCORE, EVALUATION, FID
from pipeline_definition.blueprint import Blueprint
from pipeline_definition.data import output_uri
from pipeline_definition.evaluation import METRICS


def metric(evaluate: ProcessingStep, name: str) -> JsonGet:
    """Return one number of metrics.json, read when the pipeline runs."""
    return evaluated(evaluate, f"metrics.{name}.value")


def evaluated(evaluate: ProcessingStep, path: str) -> JsonGet:
    """Return one value of metrics.json by its path, read when the pipeline runs."""
    return JsonGet(step_name=evaluate.name, property_file=METRICS, json_path=path)


def gate_step(blueprint: Blueprint, evaluate: ProcessingStep, passed: list[object]) -> ConditionStep:
    """Return the condition with what follows on either side."""
    p = blueprint.parameters
    return ConditionStep(
        name="QualityGate",
        description="FID at most MaxFid and CLIP score at least MinClipScore",
        conditions=[
            ConditionLessThanOrEqualTo(left=metric(evaluate, FID), right=p.max_fid),
            ConditionGreaterThanOrEqualTo(left=metric(evaluate, CLIP_SCORE), right=p.min_clip_score),
        ],
        if_steps=passed,
        else_steps=[gate_failed_step(blueprint, evaluate)],
    )


def gate_failed_step(blueprint: Blueprint, evaluate: ProcessingStep) -> FailStep:
    """Return the step that ends the run with the numbers, the thresholds and where the pictures are."""
    p = blueprint.parameters
    message = [
        "Quality gate missed: FID is",
        metric(evaluate, FID).to_string(),
        "and must be at most MaxFid =",
        p.max_fid.to_string(),
        "; CLIP score is",
        metric(evaluate, CLIP_SCORE).to_string(),
        "and must be at least MinClipScore =",
        p.min_clip_score.to_string(),
        "; pictures:",
        output_uri(evaluate, EVALUATION),
    ]
    return FailStep(name="GateFailed", error_message=Join(on=" ", values=message))
