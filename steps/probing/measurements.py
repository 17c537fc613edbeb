"""What was measured on one host: a line for each check, whether it went well, and the fix where it did not.

Writes each line to the log as it is known, for people and, behind PROBE_LINE, for `sd-pipeline probe`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from botocore.exceptions import BotoCoreError, ClientError

from params.layout import PROBE_LINE
from params.probe_line import FAILED, GOOD, NOTE, ProbeLine
from steps.container import Container
from steps.errors import StepError

# What a check may end with, torch's errors among them; anything else is a fault of the probe itself.
EXPECTED: Final = (StepError, OSError, RuntimeError, BotoCoreError, ClientError)


@dataclass(frozen=True)
class HostFact:
    """What a check says that went well; with a fix, it is worth knowing."""

    text: str
    fix: str = ""


@dataclass
class Measurements:
    """The lines of this host."""

    container: Container
    lines: list[ProbeLine] = field(default_factory=list)

    def take(self, check: str, measure: Callable[[], HostFact | None], fix: str, subject: str = "") -> bool:
        """Make one check and keep its line; None is no line. Return whether it went well.

        `fix` is what to do where it fails; an error that names its own fix keeps it.
        """
        began_s = time.monotonic()
        try:
            fact = measure()
        except EXPECTED as error:
            problem, _, own = " ".join(str(error).split()).partition("Fix: ")
            self._keep(ProbeLine(check, subject, FAILED, problem.rstrip(". ")[:600], own or fix), began_s)
            return False
        if fact is not None:
            self._keep(ProbeLine(check, subject, NOTE if fact.fix else GOOD, fact.text, fact.fix), began_s)
        return True

    def as_dict(self) -> dict[str, Any]:
        """Return the host's result, ready for JSON."""
        return {
            "host": self.container.cluster().current_host,
            "instance_type": self.container.instance_type,
            "lines": [asdict(line) for line in self.lines],
        }

    def _keep(self, line: ProbeLine, began_s: float) -> None:
        self.lines.append(line)
        print(f"{line.as_text()} ({time.monotonic() - began_s:.1f} s)", flush=True)
        print(PROBE_LINE + line.as_json(), flush=True)
