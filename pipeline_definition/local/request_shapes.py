"""SageMaker's own request shapes, from botocore: which arguments a step may have, and of which types."""

from __future__ import annotations

import functools
from typing import Any

import botocore.session
from botocore.model import ServiceModel, Shape
from botocore.validate import ParamValidator

from pipeline_definition.local.errors import DefinitionError, StepFailureError
from pipeline_definition.local.expressions import function_of

OPERATIONS = {
    "Processing": "CreateProcessingJob",
    "Training": "CreateTrainingJob",
    "Tuning": "CreateHyperParameterTuningJob",
    "Model": "CreateModel",
    "RegisterModel": "CreateModelPackage",
    "EndpointConfig": "CreateEndpointConfig",
    "Endpoint": "CreateEndpoint",
}


@functools.cache
def service_model() -> ServiceModel:
    """Return botocore's model of SageMaker (half a second the first time)."""
    return botocore.session.get_session().get_service_model("sagemaker")


def request_shape(operation: str) -> Shape:
    """Return the input of an operation."""
    shape = service_model().operation_model(operation).input_shape
    assert shape is not None
    return shape


def check_names(step_type: str, arguments: dict[str, Any]) -> None:
    """Check that every argument's name is known, at any depth, before its functions are resolved.

    Raises DefinitionError that names the argument and what is known beside it.
    """
    _check_value(request_shape(OPERATIONS[step_type]), arguments, "")


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
