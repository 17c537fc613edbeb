"""What preflight finds: a parameter, what is wrong with it, and the fix."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One reason not to start."""

    parameter: str
    """Name of the pipeline parameter, or key of the parameter set (`tune.micro_batch_size`)."""
    problem: str
    fix: str
    blocking: bool = True
    """False: it could not be checked, or is worth knowing; the run may start all the same."""

    def __str__(self) -> str:
        """Return the finding as one line."""
        return f"{self.parameter}: {self.problem}; {self.fix}"
