"""SageMaker's own request shapes: which arguments a step's request has, of which types, and within which limits.

Reads botocore's service model; writes nothing, needs no network.
"""

import functools
from typing import Any, Final

import botocore.session
from botocore.model import ServiceModel, StructureShape

REQUESTS: Final = {
    "Processing": "CreateProcessingJob",
    "Training": "CreateTrainingJob",
    "Tuning": "CreateHyperParameterTuningJob",
    "Model": "CreateModel",
    "RegisterModel": "CreateModelPackage",
    "EndpointConfig": "CreateEndpointConfig",
    "Endpoint": "CreateEndpoint",
}
"""The operation that each type of step calls."""


@functools.cache
def service_model(service: str = "sagemaker") -> ServiceModel:
    """Return botocore's model of a service (half a second the first time)."""
    return botocore.session.get_session().get_service_model(service)


def request_shape(operation: str) -> StructureShape:
    shape = service_model().operation_model(operation).input_shape
    assert isinstance(shape, StructureShape)
    return shape


@functools.cache
def choices(shape: str) -> tuple[str, ...]:
    enumeration: Any = service_model().shape_for(shape)
    return tuple(enumeration.enum)
