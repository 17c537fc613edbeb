"""An inference image whose model is a grey square: its seed is the level."""

import os
from http.server import ThreadingHTTPServer

from tests.pipeline_definition.prompting import conftest


class Painter(conftest.DrawingServer):
    """Listens where SageMaker asks for it."""

    def __init__(self) -> None:
        ThreadingHTTPServer.__init__(self, ("127.0.0.1", int(os.environ["SAGEMAKER_BIND_TO_PORT"])), Healthy)
        self.requests, self.refusals = [], []


class Healthy(conftest._Handler):
    """Also says that it is up."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()


if __name__ == "__main__":
    Painter().serve_forever()
