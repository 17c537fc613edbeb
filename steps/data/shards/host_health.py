"""Which hosts of a job work as well as the others: by the rows of their shards that get an answer from the web.

Knows no clock and no network: whoever asks says what time it is. One host without DNS fails a row at once where the
others take their time, asks for more, and would be given most of the table (img2dataset #145, #400). So an outcome of
which far fewer rows were answered than elsewhere is no shard yet: another host makes the same rows. Where it gets
answers, the first host is set aside, and tried with one shard every ten minutes; where it gets none, the rows are what
they are, and both hosts are fine.
"""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from statistics import median
from typing import Final

from steps.data.causes import Cause
from steps.data.shards.shards_artifact import VerifiedShard
from steps.errors import StepError

UNANSWERED: Final = (Cause.NO_ADDRESS, Cause.NO_CONNECTION, Cause.TIMEOUT)
TOO_SLOW: Final = "too_slow"
"""The cause of a host whose shards have to be ended, one after the other."""
LOST: Final = "lost"
"""The cause of a host that says nothing any more."""

FAR: Final = 0.75
"""Below this part of the others' share of answered rows a shard is suspicious."""
DEVIATIONS: Final = 5.0
"""So many standard deviations below it, too: a shard of few rows may have bad luck."""
LEAST_ANSWERED: Final = 0.1
"""Of a table's rows, where nothing is known yet of other shards; lists of 2014 to 2022 answer with 0.6 to 0.9."""
MOST_USUAL: Final = 0.95
MAX_BAD: Final = 3
"""Suspicious shards in a row of each host that is left: then it is the network of them all."""
MAX_BAD_OF_PROVEN: Final = 12
"""Of a host that has made good ones: a table may have many rows of one dead site in a row."""
PROBE_AFTER_S: Final = 600.0


@dataclass
class _Standing:
    rows: int = 0
    answered: int = 0
    is_proven: bool = False
    """It has made a shard that is not suspicious."""
    bad: list[int] = field(default_factory=list)
    """Suspicious shards since the last good one."""
    bad_s: float = 0.0
    """When the last of them was made."""
    causes: Counter[str] = field(default_factory=Counter)
    aside_until_s: float = 0.0
    """0: it is not set aside."""


class HostHealth:
    """What is known of a job's hosts; it outlasts the rounds of a download."""

    def __init__(self, hosts: Iterable[str]) -> None:
        self._hosts = {host: _Standing() for host in hosts}
        self.sick: dict[str, str] = {}
        """Hosts that were set aside or lost, whether or not they came back, with the most frequent cause."""

    def begin_round(self) -> None:
        """Forget what is usual: rows that failed before fail more often."""
        for one in self._hosts.values():
            one.rows = one.answered = 0

    def lose(self, host: str) -> None:
        """Count on a host no more. Raises StepError where it was the last one."""
        self._hosts.pop(host, None)
        self.sick[host] = LOST
        if not self._hosts:
            raise StepError("hosts: none is left to make shards; run the step again: it makes only what is missing")

    def join(self, host: str) -> None:
        """Count on a host again that was lost."""
        self._hosts.setdefault(host, _Standing())

    def may_work(self, host: str, now_s: float, is_busy: bool) -> bool:
        """Return whether a host gets a shard: those that work, and, as a probe beside well ones, one set aside."""
        if host in self.working():
            return True
        one = self._hosts.get(host)
        is_due = one is not None and 0 < one.aside_until_s <= now_s and not is_busy
        return is_due and any(map(self.is_well, self._hosts))

    def working(self) -> list[str]:
        """Return the hosts that are well; where none is, those that are not set aside, or else all."""
        well = [host for host, one in self._hosts.items() if not one.bad]
        return well or [host for host, one in self._hosts.items() if not one.aside_until_s] or list(self._hosts)

    def is_well(self, host: str) -> bool:
        """Return whether a host is not in doubt."""
        return host in self._hosts and not self._hosts[host].bad

    def is_suspicious(self, host: str, shard: VerifiedShard, is_retry: bool) -> bool:
        """Return whether far fewer of a shard's rows were answered than is usual."""
        answered = _answered(shard)
        usual = self._usual(host)
        if usual is None:
            return not is_retry and answered < LEAST_ANSWERED * shard.rows
        deviation = math.sqrt(shard.rows * usual * (1 - usual))
        return answered < min(FAR * usual * shard.rows, usual * shard.rows - DEVIATIONS * deviation)

    def is_sure(self, host: str, number: int) -> bool:
        """Return whether a host was well at its last shard, this one left out: its word on this one's rows counts."""
        one = self._hosts.get(host)
        return one is not None and one.is_proven and all(other == number for other in one.bad)

    def accept(self, host: str, shard: VerifiedShard) -> None:
        if one := self._hosts.get(host):
            one.rows, one.answered = one.rows + shard.rows, one.answered + _answered(shard)

    def clear(self, host: str, since_s: float) -> None:
        """Note that a host made a good shard from some time on: it is well, whatever was before."""
        one = self._hosts.get(host)
        if one and since_s >= one.bad_s:
            if one.aside_until_s:
                print(f"host {host} is back: its shard was as good as the others'", flush=True)
            one.bad.clear()
            one.causes.clear()
            one.is_proven, one.aside_until_s = True, 0.0

    def acquit(self, host: str, number: int) -> None:
        """Note that a suspicious shard of a host was suspicious elsewhere, too: it was the rows."""
        if one := self._hosts.get(host):
            one.bad = [other for other in one.bad if other != number]

    def suspect(self, host: str, number: int, causes: Counter[str], now_s: float) -> None:
        """Note a suspicious shard. Raises StepError where all hosts that are left had too many in a row."""
        one = self._hosts.get(host)
        if one is None:
            return
        one.bad.append(number)
        one.bad_s = now_s
        one.causes.update(causes)
        if one.aside_until_s:
            one.aside_until_s = now_s + PROBE_AFTER_S
        left = [other for other in self._hosts.values() if not other.aside_until_s] or list(self._hosts.values())
        if all(len(other.bad) >= (MAX_BAD_OF_PROVEN if other.is_proven else MAX_BAD) for other in left):
            self._give_up()

    def set_aside(self, host: str, number: int, now_s: float) -> None:
        """Give a host no more shards for a while: another one made shard `number` well, and it made none since."""
        one = self._hosts.get(host)
        if one is None or number not in one.bad or one.aside_until_s:
            return
        one.aside_until_s = now_s + PROBE_AFTER_S
        self.sick[host] = one.causes.most_common(1)[0][0]
        print(
            f"WARNING host {host} is set aside: {_counts(one.causes)} rows of its last shards, which another host made "
            f"well; they are made again, and it is tried again in {PROBE_AFTER_S / 60:.0f} minutes",
            flush=True,
        )

    def _usual(self, host: str) -> float | None:
        """Return the share of answered rows: the median of the other hosts, or its own where it is alone."""
        shares = {name: one.answered / one.rows for name, one in self._hosts.items() if one.rows}
        others = [share for name, share in shares.items() if name != host] or list(shares.values())
        return min(median(others), MOST_USUAL) if others else None

    def _give_up(self) -> None:
        causes = sum((one.causes for one in self._hosts.values()), Counter[str]())
        raise StepError(
            f"hosts: hardly a row gets an answer on any of {', '.join(sorted(self._hosts))}; most frequent: "
            f"{_counts(causes)}. No fate of these rows was stored: run the step again once the hosts' network is well "
            "(DNS, and a NAT gateway in a VPC), or put the web hosts of these rows on the blocklist if they are gone"
        )


def unanswered(shard: VerifiedShard) -> Counter[str]:
    """Return the rows of a shard that the web did not answer, by cause."""
    return Counter({cause.value: shard.failed[cause] for cause in UNANSWERED if shard.failed.get(cause)})


def _answered(shard: VerifiedShard) -> int:
    return shard.rows - unanswered(shard).total()


def _counts(causes: Counter[str]) -> str:
    return ", ".join(f"{cause} {count:,}" for cause, count in causes.most_common(3))
