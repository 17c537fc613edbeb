"""Where moto 5.2 is wrong or incomplete for what we do with it: narrow repairs, each with its reason."""

from typing import Any

from flask import Flask
from moto import backends
from moto.core.common_models import BaseModel
from moto.core.responses import ActionResult
from moto.iam.responses import IamResponse
from moto.moto_server.werkzeug_app import create_backend_app


def apply() -> None:
    # It keeps every model that was ever made: of S3, every object that was ever overwritten.
    BaseModel.__new__ = lambda cls, *args, **kwargs: object.__new__(cls)  # type: ignore[method-assign]
    # It reads a folder of some 200 at each request.
    modules = tuple(backends.list_of_moto_modules())
    backends.list_of_moto_modules = lambda: modules
    _simulate_principal_policy()


def backend_app(service: Any) -> Flask:
    """Return moto's app of a service. In Flask's debug mode, each request holds itself and its body until a sweep."""
    app = create_backend_app(service)
    app.debug, app.config["PROPAGATE_EXCEPTIONS"] = False, True
    return app


def _simulate_principal_policy() -> None:
    """The SDK asks it before upsert; moto answers 500. There is nothing to forbid on a laptop."""

    def simulate_principal_policy(self: Any) -> ActionResult:
        actions = self._get_param("ActionNames") or self._get_multi_param("ActionNames.member")
        results = [{"EvalActionName": action, "EvalResourceName": "*", "EvalDecision": "allowed"} for action in actions]
        return ActionResult({"EvaluationResults": results, "IsTruncated": False})

    IamResponse.simulate_principal_policy = simulate_principal_policy  # type: ignore[attr-defined]
