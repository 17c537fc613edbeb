"""A run's outcome for programs: runs/<execution>/summary.json, and runs/latest pointing at the newest run.

Reads an execution, its metrics and what it made; writes summary.json.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from params.files import whole_file
from params.layout import CLIP_SCORE, CLIP_SCORE_REAL, CLIP_SCORE_UNTRAINED, FID, FID_UNTRAINED, WARNINGS
from pipeline_definition.runs.executions import Execution

SUMMARY_FILE = "summary.json"
SUMMARY_METRICS = (FID, FID_UNTRAINED, CLIP_SCORE, CLIP_SCORE_UNTRAINED, CLIP_SCORE_REAL)


def summarise(execution: Execution, metrics: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the summary; `metrics` is metrics.json, or None where Evaluate never ended."""
    values = (metrics or {}).get("metrics", {})
    endpoint_arn = made_by(execution, "Endpoint")
    return {
        "execution_arn": execution.arn,
        "status": execution.status,
        "failure_reason": execution.failure_reason,
        "steps": {
            step.name: {
                "status": step.status,
                "seconds": step.seconds,
                "cached": step.cached,
                **({"failure_reason": step.failure_reason} if step.failure_reason else {}),
            }
            for step in execution.steps
        },
        "metrics": {name: values.get(name, {}).get("value") for name in SUMMARY_METRICS},
        "warnings": list((metrics or {}).get(WARNINGS, ())),
        "model_package_arn": made_by(execution, "RegisterModel"),
        "endpoint_name": endpoint_arn.rsplit("/", 1)[-1] if endpoint_arn else None,
    }


def made_by(execution: Execution, kind: str) -> str | None:
    """Return the ARN that a finished step of this kind made: kind is RegisterModel or Endpoint."""
    arns = (step.arn(kind) for step in execution.steps if step.status == "Succeeded")
    return next((arn for arn in arns if arn), None)


def point_latest_at(run_dir: Path) -> None:
    """Make runs/latest a link to this run; replaced in one step, so that it always leads somewhere."""
    with whole_file(run_dir.parent / "latest") as partial:
        partial.symlink_to(run_dir.name)
