"""What the benchmarks share: their command line, turns between the sides, other processes, ratios, and the result."""

import argparse
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from unittest import mock

import psutil

Figure = TypeVar("Figure")

ROOT = Path(__file__).resolve().parent.parent
SMALL_MODEL = ROOT / "shapes" / "models" / "pretrained"


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
    """Run each side in every round, another one first each time; the first rounds may pay for what is slow once."""
    names, figures = list(sides), {name: list[Figure]() for name in sides}
    for number in range(uncounted + rounds):
        first = number % len(names)
        for name in (*names[first:], *names[:first]):
            figures[name].append(sides[name](number))
    return {name: its[uncounted:] for name, its in figures.items()}


def in_new_processes(
    function: Callable[..., Figure], arguments: Sequence[tuple[Any, ...]], **environment: str
) -> list[Figure]:
    """Call a function at once in a new process for each of the arguments; what they print goes to stderr."""
    with (
        mock.patch.dict(os.environ, environment),
        ProcessPoolExecutor(len(arguments), multiprocessing.get_context("spawn"), os.dup2, (2, 1)) as pool,
    ):
        return list(pool.map(function, *zip(*arguments, strict=True)))


@contextmanager
def process(command: Sequence[str], **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program, which ends with the block; what it prints goes to stderr."""
    running = subprocess.Popen([*command], cwd=ROOT, env=os.environ | environment, stdout=sys.stderr)
    try:
        yield running
    finally:
        running.terminate()
        running.wait(60)


def cpu_s(of: psutil.Process) -> float:
    times = of.cpu_times()
    return float(times.user + times.system)


def median_ratio(own: Iterable[float], base: Iterable[float]) -> float:
    """Return the median over the rounds of own / base: both figures of a round saw the same machine."""
    return statistics.median(mine / its for mine, its in zip(own, base, strict=True))


def print_result(result: dict[str, Any], as_json: bool) -> None:
    """Print a result as JSON, or as what people read: its tables in Markdown, its ratios last."""
    print(json.dumps(result, indent=2) if as_json else "\n".join(lines(result)))


def lines(result: Mapping[str, Any]) -> Iterator[str]:
    for name, value in sorted(result.items(), key=lambda item: item[0] == "ratios"):
        if isinstance(value, dict) and all(isinstance(row, dict) for row in value.values()):
            value = [{name: key, **row} for key, row in value.items()]
        if isinstance(value, list) and value and isinstance(value[0], dict):
            yield from ("", *table(value), "")
        elif isinstance(value, dict):
            yield from (f"{key:32}{figure(one)}" for key, one in value.items())
        else:
            yield f"{name:32}{figure(value)}"


def table(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield rows as a table in Markdown; what a row does not have stays empty."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    yield f"| {' | '.join(names)} |"
    yield f"|---{'|---:' * (len(names) - 1)}|"
    yield from (f"| {' | '.join(figure(row.get(name, '')) for name in names)} |" for row in rows)


def figure(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(figure, value))
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return "-" if value is None else str(value)
