"""Serves a trained or a generic model: GET /ping, POST /invocations, GET /metrics.

    python -m steps serve

Reads the model folder (/opt/ml/model: a pipeline as diffusers saves it), settings from SERVE_<FIELD>
(see `params.programs.ServeArguments`; flags of the same names win), the port from SAGEMAKER_BIND_TO_PORT (8080).
Writes nothing but its log. With PROBE_<FIELD> (`params.programs.ProbeArguments`) it is the probe's endpoint.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from params.arguments import ArgumentError, from_environment, parse, to_flags
from params.families import INDEX_FILE
from params.layout import PROBE_PREFIX
from params.programs import ServeArguments
from steps.container import Container
from steps.errors import StepError
from steps.serving.app import create_app
from steps.serving.logs import configure_logs
from steps.serving.server import bind, run
from steps.serving.service import Service

if TYPE_CHECKING:
    from steps.serving.renderer import PipelineRenderer

PREFIX = "SERVE_"
PORT_VARIABLE = "SAGEMAKER_BIND_TO_PORT"


def main(argv: list[str]) -> int:
    """Serve until SIGTERM; the probe's measurements where the environment says that this is its endpoint."""
    if any(name.startswith(PROBE_PREFIX) for name in os.environ):
        from steps.probing.endpoint import serve_measurements

        return serve_measurements(Container(), port())
    arguments = settings(argv)
    model_dir = Container().model_dir
    # Before PyTorch is imported, which takes seconds.
    if not (model_dir / INDEX_FILE).is_file():
        raise StepError(f"{model_dir}: no model_index.json: the model must be a pipeline folder as diffusers saves it")
    configure_logs()
    service = Service(arguments, lambda: _load(model_dir, arguments))
    run(create_app(service), service, [bind(arguments.host, port())])
    return 0


def settings(argv: list[str]) -> ServeArguments:
    """Return the settings of the environment, with the flags on top."""
    try:
        environment = from_environment(ServeArguments, os.environ, PREFIX)
    except ArgumentError as error:
        raise StepError(str(error)) from None
    arguments = parse(ServeArguments, [*to_flags(environment.model_dump()), *argv], "serve")
    for default, limit in (("default_size_px", "max_size_px"), ("inference_steps", "max_inference_steps")):
        if getattr(arguments, default) > getattr(arguments, limit):
            raise StepError(f"{PREFIX}{default.upper()} is above {PREFIX}{limit.upper()}")
    return arguments


def port() -> int:
    text = os.environ.get(PORT_VARIABLE, "8080")
    if not text.isdigit() or not 0 < int(text) < 65536:
        raise StepError(f"{PORT_VARIABLE}: {text!r} is no port")
    return int(text)


def _load(model_dir: Path, arguments: ServeArguments) -> "PipelineRenderer":
    # PyTorch and diffusers take seconds to import: meanwhile the health check already answers.
    from steps.serving.logs import quiet_libraries
    from steps.serving.renderer import load_renderer

    quiet_libraries()
    return load_renderer(model_dir, arguments)
