import ssl
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from params.programs import DownloadSettings
from steps.data.causes import FetchError
from steps.data.fetching import fetch as module
from steps.data.fetching.address import AddressGuard
from steps.data.fetching.connection import GuardedConnection
from steps.data.fetching.fetch import Fetcher, redirect_target
from tests.steps.data.web import Web, picture


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BACK_OFF_S", 0.001)


def fetcher(site: Web, timeout_s: float = 5.0, retries: int = 0, **settings: object) -> Fetcher:
    values = {"timeout_s": timeout_s, "retries": retries, "max_body_mb": 1, **settings}
    return Fetcher(DownloadSettings.model_validate(values), AddressGuard([site.host]))


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
        ("/short/1", "truncated"),
        ("/svg/1", "unsupported_format"),
        ("/page/1", "not_a_picture"),
        ("/part/0-99/200", "http_206"),
        ("/part/1-99/100", "http_206"),
        ("/packed/gzip-bomb", "body_too_large"),
        ("/packed/gzip-members-bomb", "body_too_large"),
        ("/packed/br-odd", "bad_response"),
        ("/packed/zstd-gzip", "bad_response"),
        ("/redirect/http://[::1", "refused_scheme"),
        ("/redirect/http://x:99999/", "refused_scheme"),
        ("/packed/gzip-cut", "truncated"),
        ("/packed/gzip-broken", "bad_response"),
        ("/huge/1", "body_too_large"),
        ("/endless/1", "body_too_large"),
        ("/around/", "too_many_redirects"),
        ("/robots/unavailable_after:_1_Jan_2030_00:00:00_GMT,_noai", "disallowed"),
        ("/header/TDM-Reservation/1", "disallowed"),
        ("/header/Content-Usage/train-ai=n", "disallowed"),
        ("/header/Content-Signal/search=yes,ai-train=no", "disallowed"),
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
    limits, guard = DownloadSettings(timeout_s=1.0, retries=0), AddressGuard(["127.0.0.1:9"])
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


def test_a_picture_that_looks_cut_is_tried_again_and_then_left_to_the_decoder(site: Web) -> None:
    assert fetcher(site, retries=1).fetch(f"{site.url}/cut/31") == picture(31)[:-200]
    assert site.hits["/cut/31"] == 2


@pytest.mark.parametrize("name", ["X-Robots-Tag", "TDM-Reservation", "Content-Usage", "Content-Signal"])
def test_each_kind_of_opt_out_can_be_ignored(site: Web, name: str) -> None:
    values = {"X-Robots-Tag": "noai", "TDM-Reservation": "1", "Content-Usage": "train-ai=n"}
    url = f"{site.url}/header/{name}/{values.get(name, 'ai-train=no')}"
    assert cause(site, url) == "disallowed"
    assert fetcher(site, ignored_opt_outs=[name.lower()]).fetch(url) == picture(1)


@pytest.mark.parametrize(
    "coding",
    ["gzip", "x-gzip", "deflate", "deflate-bare", "gzip,gzip", "gzip-members", "gzip-trailing", "utf-8", "br-plain"],
)
def test_what_was_packed_unasked_is_unpacked(site: Web, coding: str) -> None:
    assert fetcher(site).fetch(f"{site.url}/packed/{coding}") == picture(1)


@pytest.mark.parametrize(
    ("location", "path"),
    [
        ("/picture/1?größe=Å", "/picture/1?gr%C3%B6%C3%9Fe=%C3%85"),
        ("/picture/1?a b", "/picture/1?a%20b"),
        (b"/picture/1?\xe5", "/picture/1?%E5"),
        ("\\picture\\1?a", "/picture/1?a"),
        ("?1", "/location/?1"),
        ("../picture/1#part", "/picture/1"),
        ("/picture/1?50%&n=%C3%A9", "/picture/1?50%25&n=%C3%A9"),
        ("/picture/1?a=%2520", "/picture/1?a=%2520"),
    ],
)
def test_a_location_is_read_as_browsers_read_it(site: Web, location: str | bytes, path: str) -> None:
    content = location if isinstance(location, bytes) else location.encode()
    site.locations["/location/"] = content
    found = redirect_target(f"{site.url}/location/", content.decode("latin-1"))
    assert module._parse(found).request_uri == path
    if "picture/1" in path:
        assert fetcher(site).fetch(f"{site.url}/location/") == picture(1)
        assert site.hits[path] >= 1


def test_twenty_redirects_are_followed(site: Web) -> None:
    assert fetcher(site).fetch(f"{site.url}/hops/20") == picture(1)
    assert cause(site, f"{site.url}/hops/21") == "too_many_redirects"


def test_a_later_hop_to_a_private_address_is_refused(site: Web) -> None:
    assert cause(site, f"{site.url}/redirect//redirect/http://127.0.0.1:9/") == "refused_address"


def test_an_opt_out_of_a_redirect_counts(site: Web) -> None:
    assert cause(site, f"{site.url}/hops/noai") == "disallowed"


@pytest.mark.parametrize("path", ["/part/0-99/100", "/status_with_picture/203", "/hints/103", "/hints/100,103,102"])
def test_a_whole_picture_under_another_status_counts(site: Web, path: str) -> None:
    assert fetcher(site).fetch(site.url + path) == picture(1)


def test_an_escaped_ampersand_is_tried_as_it_is_and_then_as_one(site: Web) -> None:
    assert fetcher(site).fetch(f"{site.url}/entity/?w=1&amp;h=2") == picture(1)
    assert site.hits["/entity/?w=1&amp;h=2"] == 1
    assert cause(site, f"{site.url}/gone?a&amp;b") == "http_404"
    assert fetcher(site).fetch(f"{site.url}/picture/6?a&amp;b") == picture(6)
    assert not site.hits["/picture/6?a&b"]


@pytest.mark.parametrize("entity", ["&#38;", "&#038;", "&#x26;"])
def test_an_ampersand_by_its_number_is_read_as_one(site: Web, entity: str) -> None:
    assert fetcher(site).fetch(f"{site.url}/picture/7?a{entity}b=%") == picture(7)
    assert site.hits["/picture/7?a&b=%25"] >= 1


def test_marks_and_line_ends_in_a_url_are_ignored(site: Web) -> None:
    assert fetcher(site).fetch(f"\ufeff{site.url}/pict\r\n\ture/8\n") == picture(8)


def test_a_contact_stands_in_the_user_agent(site: Web) -> None:
    assert cause(site, f"{site.url}/contact/") == "http_403"
    assert fetcher(site, contact="https://pictures.example/bot").fetch(f"{site.url}/contact/")


@pytest.mark.parametrize("status", [429, 503])
def test_who_asks_for_patience_gets_it_from_all_threads(site: Web, status: int) -> None:
    site.busy_until_s = time.monotonic() + 0.9
    shared = fetcher(site, retries=1)
    urls = [f"{site.url}/patience/{status}/{number}" for number in range(24)]
    with ThreadPoolExecutor(4) as threads:
        assert set(threads.map(shared.fetch, urls)) == {picture(1)}
    asked = sum(site.hits[url.removeprefix(site.url)] for url in urls)
    assert asked <= 24 + 4, "only those that were under way before the answer came were refused"


def test_who_wants_to_be_left_alone_for_long_is_asked_once(site: Web) -> None:
    shared = fetcher(site, retries=2)
    for number in range(5):
        with pytest.raises(FetchError, match="http_429"):
            shared.fetch(f"{site.url}/closed/{number}")
    assert sum(site.hits[f"/closed/{number}"] for number in range(5)) == 1


@pytest.mark.parametrize(("scheme", "port"), [("http", 80), ("https", 443)])
def test_the_port_of_the_scheme_is_left_out_of_the_host_header(scheme: str, port: int) -> None:
    for url, host in ((f"{scheme}://a.example/", "a.example"), (f"{scheme}://a.example:8080/", "a.example:8080")):
        connection = GuardedConnection(module._parse(url), AddressGuard(), ssl.create_default_context(), 0.0)
        sent: list[bytes] = []
        connection.sock = SimpleNamespace(sendall=sent.append, close=lambda: None)  # type: ignore[assignment]
        connection.request("GET", "/")
        assert f"\r\nHost: {host}\r\n".encode() in b"".join(sent)
    bare = GuardedConnection(module._parse(f"{scheme}://a/"), AddressGuard(), ssl.create_default_context(), 0.0)
    assert bare.port == port


def test_proxies_of_the_environment_are_ignored(site: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert fetcher(site).fetch(f"{site.url}/picture/5") == picture(5)


def test_many_threads_share_one_fetcher(site: Web) -> None:
    shared = fetcher(site)
    with ThreadPoolExecutor(16) as threads:
        bodies = list(threads.map(lambda number: shared.fetch(f"{site.url}/picture/{number}"), range(64)))
    assert bodies == [picture(number) for number in range(64)]
    assert threading.active_count() < 100
