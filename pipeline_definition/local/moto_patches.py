"""Where moto 5.2 is wrong or incomplete for what we do with it: narrow repairs, each with its reason."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from typing import Any

import moto.sagemaker.models as moto_sagemaker
from flask import Flask
from moto import backends
from moto.core.common_models import BaseModel
from moto.core.responses import ActionResult
from moto.iam.responses import IamResponse
from moto.moto_server.werkzeug_app import create_backend_app
from moto.s3.models import s3_backends
from moto.sagemaker.models import FakeEndpointConfig, SageMakerModelBackend


class PinnedClock(threading.local):
    """The time that moto's SageMaker sees in this thread: while the journal is replayed, that of each request."""

    time_s: float | None = None

    def utcnow(self) -> datetime:
        """Return the pinned time, else now; naive UTC, as moto's own."""
        now = datetime.now(UTC) if self.time_s is None else datetime.fromtimestamp(self.time_s, UTC)
        return now.replace(tzinfo=None)


clock = PinnedClock()


def apply() -> None:
    """Repair moto in this process."""
    moto_sagemaker.utcnow = clock.utcnow  # type: ignore[attr-defined]
    # Its list of instance types is that of 2020: no ml.g5.*, ml.p4d.* and others. SageMaker's own check is the
    # account's quota, which a laptop does not have.
    FakeEndpointConfig.validate_instance_type = lambda self, instance_type: None  # type: ignore[method-assign]
    # It keeps every model that was ever made: of S3, every object that was ever overwritten.
    BaseModel.__new__ = lambda cls, *args, **kwargs: object.__new__(cls)  # type: ignore[method-assign]
    # It reads a folder of some 200 at each request.
    modules = tuple(backends.list_of_moto_modules())
    backends.list_of_moto_modules = lambda: modules
    moto_sagemaker.load_pipeline_definition_from_s3 = _definition_text  # type: ignore[assignment,attr-defined]
    _keep_modified_time()
    _simulate_principal_policy()


def backend_app(service: Any) -> Flask:
    """Return moto's app of a service. In Flask's debug mode, each request holds itself and its body until a sweep."""
    app = create_backend_app(service)
    app.debug, app.config["PROPAGATE_EXCEPTIONS"] = False, True
    return app


def _definition_text(place: dict[str, str], account_id: str, partition: str) -> str:
    """A definition of more than 100 KB lies in S3, from where moto takes it parsed: the API's is a text."""
    stored: Any = s3_backends[account_id][partition].get_object(place["Bucket"], place["ObjectKey"])
    return bytes(stored.value).decode()


def _keep_modified_time() -> None:
    """UpdatePipeline leaves LastModifiedTime as it was."""
    update: Any = SageMakerModelBackend.update_pipeline

    def update_pipeline(self: Any, pipeline_name: str, **changes: Any) -> str:
        arn = str(update(self, pipeline_name, **changes))
        self.pipelines[pipeline_name].last_modified_time = clock.utcnow()
        return arn

    SageMakerModelBackend.update_pipeline = update_pipeline  # type: ignore[method-assign]


def _simulate_principal_policy() -> None:
    """The SDK asks it before upsert; moto answers 500. There is nothing to forbid on a laptop."""

    def simulate_principal_policy(self: Any) -> ActionResult:
        actions = self._get_param("ActionNames") or self._get_multi_param("ActionNames.member")
        results = [{"EvalActionName": action, "EvalResourceName": "*", "EvalDecision": "allowed"} for action in actions]
        return ActionResult({"EvaluationResults": results, "IsTruncated": False})

    IamResponse.simulate_principal_policy = simulate_principal_policy  # type: ignore[attr-defined]
