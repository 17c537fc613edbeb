from collections.abc import Iterator

import pytest

from tests.steps.data import web


@pytest.fixture(scope="module")
def site() -> Iterator[web.Web]:
    with web.serving() as server:
        yield server
