"""What a job's progress line says, in words for a table and as figures for programs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def progress_text(said: Mapping[str, Any]) -> str:
    """Return `42% of 51,200 samples, 6.1 it/s, 1:23 left, $12.40 so far, $17.10 to go`."""
    done, total = float(said.get("done", 0)), float(said.get("total", 0))
    parts = [f"{100 * done / total:.0f}% of {total:,.0f} {said.get('unit', '')}".rstrip()] if total else []
    if said.get("iterations_per_s"):
        parts.append(f"{said['iterations_per_s']:.2f} it/s")
    elif said.get("per_s"):
        parts.append(f"{said['per_s']:,.1f} {said.get('unit', '')}/s")
    if said.get("remaining_s") is not None and done < total:
        parts.append(f"{clock(float(said['remaining_s']))} left")
    if said.get("cost_usd") is not None:
        parts.append(f"{usd_text(float(said['cost_usd']))} so far")
    if said.get("remaining_usd") is not None and done < total:
        parts.append(f"{usd_text(float(said['remaining_usd']))} to go")
    return ", ".join(parts)


def fraction(said: Mapping[str, Any]) -> float | None:
    """Return how much is done, from 0 to 1; None where the line does not say."""
    total = float(said.get("total", 0))
    return min(1.0, float(said.get("done", 0)) / total) if total > 0 else None


def clock(seconds: float) -> str:
    """Return 0:07, 12:34 or 1:02:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def usd_text(usd: float) -> str:
    """Return whole dollars from $1,000 on, cents below."""
    return f"${usd:,.0f}" if usd >= 1000 else f"${usd:,.2f}"


def first_line(text: str) -> str:
    """Return the first line of a reason: the rest is in the log."""
    return text.strip().splitlines()[0] if text.strip() else ""
