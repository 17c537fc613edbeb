"""What was measured on one host: a line for each check, whether it went well, and the fix where it did not.

Reads fixes.yaml, which has a fix for each check. Writes each line to the log as it is known, for people and, behind
PROBE_LINE, for `sd-pipeline probe`.
"""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Final

from botocore.exceptions import BotoCoreError, ClientError

from params.layout import PROBE_LINE
from params.programs.probe import FAILED, GOOD, NOTE, ProbeLine
from params.tables import table_beside
from steps.container import Container
from steps.errors import StepError

FIXES: Final = table_beside(__file__, "fixes")
# What a check may end with, torch's errors among them; anything else is a fault of the probe itself.
EXPECTED: Final = (StepError, OSError, RuntimeError, BotoCoreError, ClientError)


@dataclass
class Measurements:
    container: Container
    lines: list[ProbeLine] = field(default_factory=list)

    def take(self, check: str, measure: Callable[[], str], subject: str = "", **about: str) -> bool:
        """Make one check and keep its line; return whether it went well.

        `about` fills the check's fix; an error may name its own behind `Fix: `, and so does what went well and is worth
        knowing.
        """
        began_s = time.monotonic()
        try:
            told, failed = measure(), False
        except EXPECTED as error:
            told, failed = str(error), True
        text, _, own = " ".join(told.split()).partition("Fix: ")
        status, fix = (FAILED, own or FIXES[check].format(**about)) if failed else (NOTE if own else GOOD, own)
        line = ProbeLine(check, subject, status, text.rstrip(". ")[:600], fix)
        self.lines.append(line)
        print(f"{line.as_text()} ({time.monotonic() - began_s:.1f} s)", flush=True)
        print(PROBE_LINE + line.as_json(), flush=True)
        return line.status != FAILED

    def are_good(self, *checks: str) -> bool:
        return not any(line.status == FAILED for line in self.lines if line.check in checks)

    def as_json(self) -> bytes:
        host, kind = self.container.cluster().current_host, self.container.instance_type
        lines = [asdict(line) for line in self.lines]
        return json.dumps({"host": host, "instance_type": kind, "lines": lines}).encode()
