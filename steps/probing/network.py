"""What the host reaches: names, the services' addresses, the way out.

Reads the resolver and opens connections, over which nothing is sent; writes nothing.
"""

import itertools
import socket
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final
from urllib.parse import urlsplit

import boto3
from botocore.config import Config

from params.programs import ProbeArguments
from steps.errors import StepError
from steps.network import unreachable
from steps.probing.measurements import Measurements

HTTPS_PORT: Final = 443
# What img2dataset has open at once on a host; each asks the resolver.
LOOKUPS_AT_ONCE: Final = 32
LOOKUPS: Final = 512
# A resolver that is out of reach takes seconds to say so, each time.
LOOKUP_LIMIT_S: Final = 10.0


def look_at_network(arguments: ProbeArguments, measurements: Measurements) -> None:
    for service in arguments.services:
        endpoint = f"an interface endpoint of {service} with private DNS"
        endpoint = "a gateway endpoint of s3" if service == "s3" else endpoint
        answers = partial(_answers, _address_of(service, arguments.region))
        measurements.take("services", answers, service, endpoint=endpoint)
    names = sorted({_address_of(service, arguments.region)[0] for service in arguments.services})
    measurements.take("names", lambda: _names_per_second(names))
    if arguments.way_out:
        host, _, port = arguments.way_out.partition(":")
        measurements.take("way_out", partial(_answers, (host, int(port or HTTPS_PORT))))


def client_of(service: str, region: str) -> Any:
    """Return a boto3 client that gives up within seconds: what does not answer here is a finding."""
    config = Config(retries={"max_attempts": 2, "mode": "standard"}, connect_timeout=5, read_timeout=20)
    make: Any = boto3.client  # typed by a literal name for each service
    return make(service, region_name=region, config=config)


def _address_of(service: str, region: str) -> tuple[str, int]:
    parts = urlsplit(client_of(service, region).meta.endpoint_url)
    return parts.hostname or "", parts.port or (HTTPS_PORT if parts.scheme == "https" else 80)


def _answers(address: tuple[str, int]) -> str:
    began_s = time.monotonic()
    problem = unreachable(address)
    if problem:
        raise StepError(f"{address[0]}:{address[1]} does not answer ({problem})")
    return f"{address[0]}:{address[1]} answers in {1000 * (time.monotonic() - began_s):.0f} ms"


def _names_per_second(names: Sequence[str]) -> str:
    """Look the services' names up again and again; an address in figures is no name, and `localhost` stands in."""
    names = [name for name in names if not name.replace(".", "").isdigit()] or ["localhost"]
    began_s = time.monotonic()

    def look_up(name: str) -> str | None:
        """Return what is wrong, if anything; None once it is too late to ask."""
        if time.monotonic() > began_s + LOOKUP_LIMIT_S:
            return None
        try:
            socket.getaddrinfo(name, HTTPS_PORT, type=socket.SOCK_STREAM)
        except OSError as error:
            return f"{name}: {error.strerror or error}"
        return ""

    with ThreadPoolExecutor(LOOKUPS_AT_ONCE) as threads:
        answers = threads.map(look_up, itertools.islice(itertools.cycle(names), LOOKUPS))
        known = [answer for answer in answers if answer is not None]
    if problems := [answer for answer in known if answer]:
        raise StepError(f"{len(problems)} of {len(known)} look-ups failed, such as {problems[0]}")
    return f"{len(known) / (time.monotonic() - began_s):,.0f} names/s, {LOOKUPS_AT_ONCE} at once"
