"""A step's request against SageMaker's own shapes: which arguments it may have, and of which types."""

from __future__ import annotations

from typing import Any

from botocore.validate import ParamValidator

from pipeline_definition.jobs.request_shapes import REQUESTS, request_shape
from pipeline_definition.local.errors import DefinitionError, StepFailureError
from pipeline_definition.local.expressions import function_of


def check_names(step_type: str, arguments: dict[str, Any]) -> None:
    """Check that every argument's name is known, at any depth, before its functions are resolved.

    Raises DefinitionError that names the argument and what is known beside it.
    """
    _check_value(request_shape(REQUESTS[step_type]), arguments, "")


def check_request(operation: str, request: dict[str, Any]) -> None:
    """Check names, types and required members of a resolved request.

    Raises StepFailureError with botocore's report.
    """
    report = ParamValidator().validate(request, request_shape(operation))
    if report.has_errors():
        text = "; ".join(report.generate_report().split("\n"))
        raise StepFailureError(f"ClientError: {operation}: {text}")


def _check_value(shape: Any, value: Any, path: str) -> None:
    if function_of(value) is not None:
        return
    if shape.type_name == "structure" and isinstance(value, dict):
        for name, item in value.items():
            if name not in shape.members:
                known = ", ".join(shape.members)
                raise DefinitionError(f"unknown argument {path}{name}; known: {known}")
            _check_value(shape.members[name], item, f"{path}{name}.")
    elif shape.type_name == "list" and isinstance(value, list):
        for index, item in enumerate(value):
            _check_value(shape.member, item, f"{path.rstrip('.')}[{index}].")
    elif shape.type_name == "map" and isinstance(value, dict):
        for name, item in value.items():
            _check_value(shape.value, item, f"{path}{name}.")
