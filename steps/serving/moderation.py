"""Which prompts an endpoint refuses.

Reads the file of SERVE_REFUSED_PROMPTS, regular expressions, one a line:

    # whole words, in any case
    \\b(first|second) word\\b

Another way to judge prompts is another class with `Moderation`'s `refuses`.
"""

import re
from collections.abc import Sequence

from steps.errors import StepError
from steps.serving.objects import read


class Moderation:
    """Whether a prompt may be drawn: it holds none of some patterns."""

    def __init__(self, uri: str) -> None:
        """Read the patterns; raises StepError that names the line where one is none."""
        self._patterns = []
        for number, line in enumerate(read(uri, "refused_prompts").decode("utf-8", "replace").splitlines(), 1):
            if line.strip() and not line.startswith("#"):
                try:
                    self._patterns.append(re.compile(line.strip(), re.IGNORECASE))
                except re.error as error:
                    raise StepError(f"refused_prompts: {uri}: line {number}: {error}") from None

    def refuses(self, prompts: Sequence[str]) -> bool:
        """Return whether one of the prompts may not be drawn."""
        return any(pattern.search(prompt) for pattern in self._patterns for prompt in prompts)
