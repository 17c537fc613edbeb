"""The probe's endpoint: the inference image on the endpoint's host, without a model.

Reads PROBE_<FIELD> of the environment (`params.programs.ProbeArguments`). GET /ping answers once everything is
measured, POST /invocations with the measurements as JSON. Writes nothing but its log.
"""

import os
import signal
import sys

import uvicorn
from fastapi import FastAPI, Response

from params.arguments import from_environment
from params.layout import PROBE_PREFIX
from params.programs import ProbeArguments
from steps.container import Container
from steps.probing.host import look_at_host
from steps.probing.measurements import Measurements
from steps.probing.network import look_at_network
from steps.probing.storage import look_at_storage


def serve_measurements(container: Container, port: int) -> int:
    arguments, measurements = from_environment(ProbeArguments, os.environ, PROBE_PREFIX), Measurements(container)
    for look in (look_at_host, look_at_network, look_at_storage):
        look(arguments, measurements)
    content, app = measurements.as_json(), FastAPI(openapi_url=None)

    @app.get("/ping")
    @app.post("/invocations")
    def answer() -> Response:
        return Response(content, media_type="application/json")

    # uvicorn shuts down on SIGTERM, and then raises it once more.
    signal.signal(signal.SIGTERM, lambda _signal, _frame: sys.exit(0))
    uvicorn.run(app, host="0.0.0.0", port=port, log_level="warning")
    return 0
