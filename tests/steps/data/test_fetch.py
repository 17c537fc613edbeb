from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from steps.data import fetch as module
from steps.data.address import AddressGuard
from steps.data.fetch import Fetcher, FetchError, FetchLimits
from tests.steps.data.web import Web, picture


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BACK_OFF_S", 0.001)


def fetcher(site: Web, timeout_s: float = 5.0, retries: int = 0, max_body_bytes: int = 1 << 20) -> Fetcher:
    return Fetcher(FetchLimits(timeout_s, retries, max_body_bytes), AddressGuard([site.host]))


def cause(site: Web, url: str, **limits: float) -> str:
    with pytest.raises(FetchError) as raised:
        fetcher(site, **limits).fetch(url)  # type: ignore[arg-type]
    return raised.value.cause


def test_a_picture_arrives_whole(site: Web) -> None:
    assert fetcher(site).fetch(f"{site.url}/picture/1") == picture(1)


def test_redirects_are_followed(site: Web) -> None:
    assert fetcher(site).fetch(f"{site.url}/redirect/{site.url}/redirect//picture/2") == picture(2)


def test_urls_that_are_not_ascii_work(site: Web) -> None:
    assert fetcher(site).fetch(f" {site.url}/picture/3?größe=ß ü ") == picture(3)
    assert site.hits["/picture/3?gr%C3%B6%C3%9Fe=%C3%9F%20%C3%BC"] == 1


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/gone", "http_404"),
        ("/status/403", "http_403"),
        ("/status/999", "bad_response"),
        ("/cut/1", "truncated"),
        ("/short/1", "truncated"),
        ("/svg/1", "not_a_picture"),
        ("/huge/1", "body_too_large"),
        ("/endless/1", "body_too_large"),
        ("/around/", "too_many_redirects"),
        ("/robots/unavailable_after:_1_Jan_2030_00:00:00_GMT,_noai", "disallowed"),
        ("/redirect/http://127.0.0.1:9/", "refused_address"),
        ("/redirect/http://169.254.169.254/latest/meta-data/", "refused_address"),
        ("/redirect/file:///etc/passwd", "refused_scheme"),
        ("/redirect/data:image/png;base64,AAAA", "refused_scheme"),
    ],
)
def test_what_goes_wrong_has_a_name(site: Web, path: str, expected: str) -> None:
    assert cause(site, site.url + path) == expected


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:9/",
        "http://localhost/",
        "http://[::1]/",
        "http://[::ffff:127.0.0.1]/",
        "http://2130706433/",
        "http://169.254.169.254/latest/meta-data/iam/security-credentials/",
        "https://10.0.0.1/",
    ],
)
def test_private_addresses_are_refused_without_a_connection(site: Web, url: str) -> None:
    assert cause(site, url) == "refused_address"


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "ftp://x/y", "data:image/png,x", "gopher://x", "http://", "x", ""]
)
def test_other_schemes_are_refused(site: Web, url: str) -> None:
    assert cause(site, url) == "refused_scheme"


@pytest.mark.parametrize("path", ["/slow/1", "/slowheader/1"])
def test_a_slow_drip_ends_at_the_deadline(site: Web, path: str) -> None:
    started_s = time.monotonic()
    assert cause(site, site.url + path, timeout_s=0.5) == "timeout"
    assert time.monotonic() - started_s < 2


def test_a_name_that_does_not_resolve_has_a_cause(site: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cause(site, "http://nothing.invalid/") == "no_address"


def test_a_refused_connection_has_a_cause(site: Web) -> None:
    limits, guard = FetchLimits(1.0, 0, 100), AddressGuard(["127.0.0.1:9"])
    with pytest.raises(FetchError, match="no_connection"):
        Fetcher(limits, guard).fetch("http://127.0.0.1:9/")


def test_plain_http_behind_https_has_a_cause(site: Web) -> None:
    assert cause(site, f"https://{site.host}/picture/1") == "bad_certificate"


def test_what_can_pass_is_tried_again_and_what_cannot_is_not(site: Web) -> None:
    site.hits.clear()
    assert fetcher(site, retries=1).fetch(f"{site.url}/busy/4") == picture(4)
    assert cause(site, f"{site.url}/status/404", retries=3) == "http_404"
    assert cause(site, f"{site.url}/status/500", retries=3) == "http_500"
    assert (site.hits["/busy/4"], site.hits["/status/404"], site.hits["/status/500"]) == (2, 1, 4)


def test_proxies_of_the_environment_are_ignored(site: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert fetcher(site).fetch(f"{site.url}/picture/5") == picture(5)


def test_many_threads_share_one_fetcher(site: Web) -> None:
    shared = fetcher(site)
    with ThreadPoolExecutor(16) as threads:
        bodies = list(threads.map(lambda number: shared.fetch(f"{site.url}/picture/{number}"), range(64)))
    assert bodies == [picture(number) for number in range(64)]
    assert threading.active_count() < 100
