"""The probe's endpoint: the inference image on the endpoint's host, without a model.

Reads PROBE_<FIELD> of the environment (`params.programs.ProbeArguments`). GET /ping answers once everything is
measured, POST /invocations with the measurements as JSON. Writes nothing but its log.
"""

import os
import signal
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

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
    content = measurements.as_json()

    class EndpointAnswer(BaseHTTPRequestHandler):
        """Answers every request with the measurements, which are no secret."""

        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def do_POST(self) -> None:
            self.do_GET()

        def log_message(self, format: str, *args: object) -> None:
            """Keep health checks out of the log."""

    signal.signal(signal.SIGTERM, lambda _signal, _frame: sys.exit(0))
    with ThreadingHTTPServer(("0.0.0.0", port), EndpointAnswer) as server:
        server.serve_forever()
    return 0
