from __future__ import annotations

import pytest

from steps.data.robots import is_disallowed


@pytest.mark.parametrize(
    "headers",
    [
        ["noai"],
        ["NoImageAI"],
        ["max-snippet: 5, noai"],
        ["unavailable_after: 25 Jun 2030 15:00:00 PST, noai"],
        ["unavailable_after: Saturday, 25-Jun-30 15:00:00 GMT, noimageai"],
        ["sd-pipeline: noai"],
        ["*: noai"],
        ["otherbot: nofollow", "noindex"],
        ["otherbot: nofollow, sd-pipeline: noimageindex"],
    ],
)
def test_opt_outs_are_respected(headers: list[str]) -> None:
    assert is_disallowed(headers, "sd-pipeline")


@pytest.mark.parametrize(
    "headers",
    [[], [""], ["nofollow"], ["otherbot: noai"], ["otherbot: noai, noindex"], ["unavailable_after: noai"], [":::,,"]],
)
def test_others_are_not(headers: list[str]) -> None:
    assert not is_disallowed(headers, "sd-pipeline")
