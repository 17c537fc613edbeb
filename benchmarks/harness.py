"""What the benchmarks share: their command line, turns between the sides, ratios, and the printing of a result."""

from __future__ import annotations

import argparse
import json
import socket
import statistics
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

Figure = TypeVar("Figure")

# Seconds and CPU-seconds of a picture, one pair for each turn or round.
Turns = list[tuple[float, float]]


def parser(module: str, description: str | None, **flags: tuple[Any, str]) -> argparse.ArgumentParser:
    """Return a parser of --json and of a flag for each (default, help); a flag's type is its default's."""
    made = argparse.ArgumentParser(prog=f"python -m {module}", description=(description or "").split("\n")[0])
    made.add_argument("--json", action="store_true", help="print JSON only")
    for name, (default, text) in flags.items():
        made.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default, help=text)
    return made


def take_turns(
    sides: Mapping[str, Callable[[int], Figure]], rounds: int, uncounted: int = 0
) -> dict[str, list[Figure]]:
    """Run each side once in every round, given the round's number, and return its figures.

    A different side begins each round, so that none always runs on what the one before it left. The first rounds
    may be left uncounted: they pay for what is slow only once.
    """
    names, figures = list(sides), {name: list[Figure]() for name in sides}
    for number in range(uncounted + rounds):
        first = number % len(names)
        for name in (*names[first:], *names[:first]):
            figures[name].append(sides[name](number))
    return {name: its[uncounted:] for name, its in figures.items()}


def median_ratio(own: Iterable[float], base: Iterable[float]) -> float:
    """Return the median over the rounds of own / base: both figures of a round saw the same machine."""
    return statistics.median(mine / its for mine, its in zip(own, base, strict=True))


def summary(turns: Turns, noun: str) -> dict[str, float]:
    """Return the medians of a side whose turns draw, download or encode things called `noun`."""
    return {
        f"{noun}s_per_s": statistics.median(1 / seconds for seconds, _ in turns),
        f"cpu_ms_per_{noun}": 1000 * statistics.median(cpu_s for _, cpu_s in turns),
    }


def print_result(result: dict[str, Any], as_json: bool, lines: Callable[[dict[str, Any]], Iterable[str]]) -> None:
    """Print a result as JSON, or as the lines that people read."""
    print(json.dumps(result, indent=2) if as_json else "\n".join(lines(result)))


def free_port() -> int:
    """Return a port on loopback that nothing listens on."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])
