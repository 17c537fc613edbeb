"""python -m shapes COMMAND: the command line of the local run's world.

Each command is described by the module that does it, `shapes.web` or `shapes.render`, which is imported when it is
called, so that the web server starts without what draws.
"""

import argparse
import importlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status; a bad argument ends with status 2 and one line that names it."""
    parser = _parser()
    flags = vars(parser.parse_args(argv))
    command, (module, function) = flags.pop("command"), flags.pop("run").split(".")
    try:
        getattr(importlib.import_module(f"shapes.{module}"), function)(**flags)
    except (ValueError, OSError) as error:
        parser.exit(2, f"shapes {command}: {error}\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m shapes", allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True)

    def command(name: str, run: str, text: str) -> Callable[..., object]:
        """Add a command; return what adds a flag to it."""
        added = commands.add_parser(name, help=text, allow_abbrev=False)
        added.set_defaults(run=run)
        return added.add_argument

    path: dict[str, Any] = {"type": Path, "required": True}
    add = command("serve", "web.serve", "serve the pictures on loopback, with the web's faults")
    add("--folder", **path, help="folder that render writes")
    add("--port", type=int, default=0, help="0: a free one (default)")
    add("--port-file", type=Path, help="file that gets the port once the server listens")
    add("--drip-s", type=float, default=30.0, help="how long a slow picture takes (default 30)")
    add("--until", type=int, default=0, metavar="PID", help="end when this process does")
    add = command("render", "render.command", "draw the pictures and write the url table")
    add("--folder", **path, help="folder for the pictures")
    add("--table", **path, help="parquet file for the url table")
    add("--base-url", required=True, help="where the folder is served, as http://127.0.0.1:8000")
    add("--rows", type=int, default=4000, help="rows of the table, 16 to 4000 (default)")
    add("--seed", type=int, default=0, help="which captions, which faults, in which order")
    add("--max-aspect-ratio", type=float, default=1.0, help="above 1: square, wide and tall in turns")
    add = command("new-shape", "render.render_new_shape", "draw a shape that the others do not have, with captions")
    add("--folder", **path, help="folder for the pictures")
    return parser


if __name__ == "__main__":
    sys.exit(main())
