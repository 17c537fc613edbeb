"""The tiny pipeline, loaded once, and endpoints around it or around a renderer that the test steers."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
import uvicorn
from starlette.testclient import TestClient

from params.programs import ServeArguments
from steps.serving.app import create_app
from steps.serving.renderer import PipelineRenderer, load_renderer
from steps.serving.service import Service
from tests.steps.serving.fakes import FakeRenderer
from tests.steps.serving.tiny_pipeline import write_pipeline
from tests.steps.serving.waiting import until

ARGUMENTS = ServeArguments(
    guidance_scale=3.0,
    inference_steps=2,
    default_size_px=32,
    max_size_px=48,
    max_inference_steps=4,
    max_images=3,
    max_batch_size=4,
    queue_size=3,
    precision="float32",
    threads=1,
    max_prompt_characters=100,
    max_body_bytes=2048,
    model_name="arn:aws:sagemaker:eu-west-1:123456789012:model-package/tiny/1",
)

Serve = Callable[..., AbstractContextManager[tuple[TestClient, Service]]]


@pytest.fixture(name="model_dir", scope="session")
def model_dir_fixture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pipeline(tmp_path_factory.mktemp("model"))


@pytest.fixture(name="renderer", scope="session")
def renderer_fixture(model_dir: Path) -> PipelineRenderer:
    return load_renderer(model_dir, ARGUMENTS)


@pytest.fixture(name="serve", scope="session")
def serve_fixture() -> Serve:
    @contextmanager
    def serve(
        load: Callable[[], PipelineRenderer], wait: bool = True, **changes: object
    ) -> Iterator[tuple[TestClient, Service]]:
        service = Service(ARGUMENTS.model_copy(update=changes), load)
        with TestClient(create_app(service)) as client:
            if wait:
                until(lambda: service.worker.state == "ready")
            yield client, service

    return serve


@pytest.fixture(name="endpoint", scope="module")
def endpoint_fixture(serve: Serve, renderer: PipelineRenderer) -> Iterator[TestClient]:
    """An endpoint around the tiny pipeline, for tests that leave no trace in it."""
    with serve(lambda: renderer) as (client, _):
        yield client


@pytest.fixture(name="grey_url")
def grey_url_fixture() -> Iterator[str]:
    """The address of an endpoint that draws grey squares, over real sockets, for clients that bring their own."""
    service = Service(ARGUMENTS.model_copy(update={"max_body_bytes": 65_536, "queue_size": 32}), FakeRenderer().load)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(uvicorn.Config(create_app(service), log_config=None))
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        until(lambda: service.ready)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        server.should_exit = True
        thread.join(20)
