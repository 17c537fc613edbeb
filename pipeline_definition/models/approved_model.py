"""The approved model that a new one must not fall behind: found in the registry when a run starts.

Reads a definition, the parameters of one start and the model registry; writes nothing. A run that is started from the
console names the model itself, in ApprovedModel.

    sd-pipeline start --set ApprovedModel=s3://bucket/model/laion/train-1/output/model.tar.gz
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from params.layout import CLIP_SCORE_BELOW_APPROVED, FID_ABOVE_APPROVED
from params.parameter_names import APPROVED_MODEL, MODEL_PACKAGE_GROUP
from pipeline_definition.jobs.planned import Values
from pipeline_definition.models.registry import PackageGroup
from pipeline_definition.session import Target


def with_approved_model(target: Target, definition: Mapping[str, Any], changes: Mapping[str, str]) -> dict[str, str]:
    """Return the changes of a start with the newest approved model's address, where the definition's gate asks for it.

    The operator's choice stays; while nothing is approved, the model is compared with itself.
    """
    if APPROVED_MODEL in changes or not _is_asked(definition):
        return dict(changes)
    group = Values(definition, changes).text(MODEL_PACKAGE_GROUP)
    address = PackageGroup(target, group).approved_model()
    return {**changes, APPROVED_MODEL: address} if address else dict(changes)


def _is_asked(definition: Mapping[str, Any]) -> bool:
    steps = json.dumps(definition["Steps"])
    return any(f'"metrics.{name}.' in steps for name in (FID_ABOVE_APPROVED, CLIP_SCORE_BELOW_APPROVED))
