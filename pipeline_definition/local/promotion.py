"""The promotion on this machine: an approval starts the very state machine that infrastructure.yaml deploys.

Reads the template; runs the machine in moto's interpreter, whose requests come back to this control plane: one server
takes over from another. EventBridge's rule covers approved packages of every group but those of pretrained models.
"""

import json
import logging
import os
import re
import threading
import uuid
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlparse

import boto3
from moto.core.config import default_user_config

from pipeline_definition.infrastructure.template import StackTemplate
from pipeline_definition.local.errors import NotOursError
from pipeline_definition.local.records import Record
from pipeline_definition.local.services import Services
from pipeline_definition.local.settings import ACCOUNT, CREDENTIALS, REGION, SERVICE_KEY

MACHINE: Final = "sd-pipeline-promotion"
ENDPOINT: Final = "sd-production"
OUTPUTS: Final = {
    "ProductionEndpoint": ENDPOINT,
    "PromotionArn": f"arn:aws:states:{REGION}:{ACCOUNT}:stateMachine:{MACHINE}",
}
"""What the stack's outputs say on AWS."""
_ROLE: Final = f"arn:aws:iam::{ACCOUNT}:role/local"
_VALUES: Final = {
    "ProductionEndpoint": ENDPOINT,
    "ProductionInstanceType": "ml.c5.large",
    "ProductionInstanceCount": "1",
    "AWS::Partition": "aws",
    "Project": "sd-pipeline",
    "PromotionTags": "",
    "Reserved": "",
    "Role": _ROLE,
    "ErrorAlarm": f"{ENDPOINT}-errors",
    "LatencyAlarm": f"{ENDPOINT}-latency",
}
_WAIT_S: Final = 1
_PRETRAINED_SUFFIX: Final = "-pretrained"
_log = logging.getLogger(__name__)


class Promotion:
    """The state machine, made when it is first needed: moto's interpreter takes seconds to import."""

    def __init__(self, services: Services) -> None:
        self._services, self._making = services, threading.Lock()
        self._client: Any = None

    def approved(self, package: Mapping[str, Any]) -> None:
        """Do what the rule does when a package has been approved; the answer to the approval does not wait for it."""
        group = str(package.get("ModelPackageGroupName") or _PRETRAINED_SUFFIX)
        if not group.endswith(_PRETRAINED_SUFFIX):
            own = (package["ModelPackageArn"],)
            threading.Thread(target=self._start, args=own, name="approved", daemon=True).start()

    def start_execution(self, request: Mapping[str, Any]) -> Record:
        """Make the machine; moto starts it."""
        self._make()
        raise NotOursError

    def _start(self, package: str) -> None:
        detail = {"ModelPackageArn": package, "ModelApprovalStatus": "Approved"}
        try:
            self._make().start_execution(
                stateMachineArn=OUTPUTS["PromotionArn"],
                name=f"approved-v{package.rsplit('/', 1)[-1]}-{uuid.uuid4().hex[:8]}",
                input=json.dumps({"detail": detail}),
            )
        except Exception:
            _log.exception("the promotion of %s did not start", package)

    def _make(self) -> Any:
        """Return the client by which the machine, made by now, is started: a service's own, which no switch refuses."""
        with self._making:
            if self._client is not None:
                return self._client
            default_user_config["stepfunctions"] = {"execute_state_machine": True}
            # Where moto's interpreter sends the requests of a machine.
            os.environ["MOTO_PORT"] = str(urlparse(self._services.url).port)
            # Its log reports each missing path as an error, and a Choice asks for such paths.
            logging.getLogger("moto.stepfunctions").setLevel(logging.CRITICAL)
            session = boto3.Session(SERVICE_KEY, CREDENTIALS["AWS_SECRET_ACCESS_KEY"], region_name=REGION)
            client = session.client("stepfunctions", endpoint_url=self._services.url)
            client.create_state_machine(name=MACHINE, definition=definition(), roleArn=_ROLE)
            self._client = client
            return client


def definition() -> str:
    """Return the template's state machine for this machine: its names filled in, its waits shortened."""
    properties = StackTemplate().content["Resources"]["Promotion"]["Properties"]
    text, parts = properties["DefinitionString"]["Fn::Sub"]
    hosts = _filled(parts["Hosts"]["Fn::Sub"][0], _VALUES)
    text = _filled(text, {**_VALUES, "Hosts": hosts})
    return re.sub(r'"(Seconds|IntervalSeconds)": \d+', rf'"\1": {_WAIT_S}', text)


def _filled(text: str, values: Mapping[str, str]) -> str:
    return re.sub(r"\$\{([^}]+)\}", lambda match: values[match[1]], text)
