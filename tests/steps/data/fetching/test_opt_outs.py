from email.message import Message

import pytest

from steps.data.fetching.opt_outs import is_reserved


def reserved(*headers: tuple[str, str], ignored: tuple[str, ...] = ()) -> bool:
    message = Message()
    for name, value in headers:
        message[name] = value
    return is_reserved(message, "sd-pipeline", ignored)


@pytest.mark.parametrize(
    "headers",
    [
        ["noai"],
        ["NoImageAI"],
        ["none"],
        ["noml"],
        ["max-snippet: 5, noai"],
        ["unavailable_after: 25 Jun 2030 15:00:00 PST, noai"],
        ["unavailable_after: Saturday, 25-Jun-30 15:00:00 GMT, noimageai"],
        ["sd-pipeline: noai"],
        ["*: noai"],
        ["otherbot: nofollow", "noindex"],
        ['"noai, noimageai"'],
        ["nofollow; noai"],
        ["robots: noai"],
        ["otherbot: nofollow, *: noai"],
        ["otherbot: nofollow, sd-pipeline: noimageindex"],
    ],
)
def test_robots_tags_are_heeded(headers: list[str]) -> None:
    assert reserved(*(("X-Robots-Tag", header) for header in headers))
    assert not reserved(*(("X-Robots-Tag", header) for header in headers), ignored=("x-robots-tag",))


@pytest.mark.parametrize(
    "headers",
    [[], [""], ["nofollow"], ["otherbot: noai"], ["otherbot: noai, noindex"], ["unavailable_after: noai"], [":::,,"]],
)
def test_others_are_not(headers: list[str]) -> None:
    assert not reserved(*(("X-Robots-Tag", header) for header in headers))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TDM-Reservation", "1"),
        ("tdm-reservation", " 1 "),
        ("TDM-Reservation", '"1"'),
        ("TDM-Reservation", "true"),
        ("TDM-Reservation", "0, 1"),
        ("Content-Usage", "search=y; train-ai=n"),
        ("Content-Usage", 'Train-AI = "N"'),
        ("Content-Usage", "genai=n"),
        ("Content-Usage", "train-ai=n"),
        ("Content-Usage", "search=y, train-ai=n;why=x"),
        ("Content-Usage", "bots=n"),
        ("Content-Usage", "train-ai=n, all=y"),
        ("Content-Signal", "search=yes, ai-train=no"),
        ("Content-Signal", "AI-Train=No"),
    ],
)
def test_reservations_are_heeded(name: str, value: str) -> None:
    assert reserved((name, value))
    assert not reserved((name, value), ignored=(name.lower(),))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TDM-Reservation", "0"),
        ("TDM-Reservation", "false"),
        ("Content-Usage", "train-ai=y"),
        ("Content-Usage", "search=n"),
        ("Content-Usage", "bots=n, train-ai=y"),
        ("Content-Usage", ",;=,"),
        ("Content-Signal", "ai-train=yes, ai-input=no"),
        ("TDM-Policy", "https://x.example/policy.json"),
    ],
)
def test_what_reserves_nothing_is_no_opt_out(name: str, value: str) -> None:
    assert not reserved((name, value))
