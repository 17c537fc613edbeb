"""Addresses of web hosts, asked for once by all processes of this host, and no faster than its network interface may.

Reads the resolver; keeps answers in an SQLite file that the processes of a crew share, and that ends with it. A process
that is killed in the middle of a look-up leaves no lock behind. An interface in a VPC gets 1,024 packets a second to
Amazon's DNS server, and what is beyond is dropped (Amazon VPC user guide, "DNS quotas").
"""

import json
import socket
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, Final

FoundAddress = tuple[socket.AddressFamily, str]

ANSWER_LIFE_S: Final = 4 * 3600.0
NO_ANSWER_LIFE_S: Final = 600.0
"""Of a name that is none, and of an address that did not answer."""
NO_RESOLVER_LIFE_S: Final = 10.0
"""Of a failure that says nothing of the name."""
MAX_NAMES: Final = 1_000_000
"""About 150 MB; LAION-400M has 5 million (img2dataset #43), of which a fifth are nearly all of the rows."""
ASKED_PER_S: Final = 400.0
"""A and AAAA are two packets, and four where a name that is none is tried in a search domain, too."""

_TABLES = """
PRAGMA journal_mode = TRUNCATE;
PRAGMA synchronous = OFF;
CREATE TABLE IF NOT EXISTS names (name TEXT PRIMARY KEY, found TEXT, asked_s REAL, until_s REAL);
CREATE TABLE IF NOT EXISTS turn (one INTEGER PRIMARY KEY, at_s REAL);
INSERT OR IGNORE INTO turn VALUES (1, 0);
"""


def ask(name: str) -> list[FoundAddress]:
    """Return the addresses of a host, from the resolver. Raises OSError where there is none."""
    found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    return [(family, str(address[0])) for family, _, _, _, address in found]


class HostNames:
    """The names that this host has asked for. Safe for threads and for processes."""

    def __init__(
        self,
        file: Path | None = None,
        ask: Callable[[str], list[FoundAddress]] = ask,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`file` is what processes share; without one, this process keeps to itself. `clock` is one for all of them."""
        self._ask, self._clock, self._sleep = ask, clock, sleep
        self._lock = threading.Lock()
        self._asking: dict[str, threading.Lock] = {}
        self._kept = sqlite3.connect(file or ":memory:", timeout=60, isolation_level=None, check_same_thread=False)
        self._kept.executescript(_TABLES)

    def addresses(self, name: str) -> list[FoundAddress]:
        """Return a name's addresses. Raises OSError where there is none."""
        found = self._known(name)
        if found is None:
            with self._lock:
                asking = self._asking.setdefault(name, threading.Lock())
            with asking:
                # Whoever else wanted it may have it by now.
                found = self._known(name) or self._asked(name)
            with self._lock:
                self._asking.pop(name, None)
        if isinstance(found, OSError):
            raise found
        return found

    def forget(self, name: str) -> None:
        """Keep a name for minutes only: none of its addresses answered. That it has none is remembered."""
        change = "UPDATE names SET until_s = min(until_s, asked_s + ?) WHERE name = ?"
        self._execute(change, NO_ANSWER_LIFE_S, name)

    def _known(self, name: str) -> list[FoundAddress] | OSError | None:
        rows = self._execute("SELECT found FROM names WHERE name = ? AND until_s > ?", name, self._clock())
        if not rows:
            return None
        kept = json.loads(rows[0][0])
        if isinstance(kept, dict):
            return socket.gaierror(kept["number"], kept["words"])
        return [(socket.AddressFamily(family), text) for family, text in kept]

    def _asked(self, name: str) -> list[FoundAddress] | OSError:
        self._wait_for_turn()
        found: list[FoundAddress] | OSError
        try:
            found, life_s = self._ask(name), ANSWER_LIFE_S
        except (OSError, ValueError) as error:  # ValueError: a name that IDNA refuses
            found = error if isinstance(error, OSError) else socket.gaierror(socket.EAI_NONAME, str(error))
            life_s = NO_RESOLVER_LIFE_S if found.errno == socket.EAI_AGAIN else NO_ANSWER_LIFE_S
        kept = {"number": found.errno, "words": found.strerror} if isinstance(found, OSError) else found
        now_s = self._clock()
        self._execute("REPLACE INTO names VALUES (?, ?, ?, ?)", name, json.dumps(kept), now_s, now_s + life_s)
        # Each answer has the number after the last one's: the oldest go.
        self._execute("DELETE FROM names WHERE rowid <= (SELECT max(rowid) FROM names) - ?", MAX_NAMES)
        return found

    def _wait_for_turn(self) -> None:
        take = "UPDATE turn SET at_s = max(at_s + ?, ?) RETURNING at_s"
        now_s = self._clock()
        ((at_s,),) = self._execute(take, 1 / ASKED_PER_S, now_s)
        self._sleep(max(0.0, at_s - now_s))

    def _execute(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        with self._lock, closing(self._kept.execute(statement, values)) as rows:
            return rows.fetchall()
