"""python -m shapes COMMAND: the command line of the local run's world.

Each command is described by the module that does it: `shapes.web`, `shapes.render`, `shapes.train_models`,
`shapes.flow_models`. They are imported when they are called, so that the web server starts without torch.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
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
    exact: dict[str, Any] = {"allow_abbrev": False}
    serve = commands.add_parser("serve", help="serve the pictures on loopback, with the web's faults", **exact)
    serve.set_defaults(run="web.serve")
    serve.add_argument("--folder", type=Path, required=True, help="folder that render writes")
    serve.add_argument("--port", type=int, default=0, help="0: a free one (default)")
    serve.add_argument("--port-file", type=Path, help="file that gets the port once the server listens")
    serve.add_argument("--drip-s", type=float, default=30.0, help="how long a slow picture takes (default 30)")
    serve.add_argument("--until", type=int, default=0, metavar="PID", help="end when this process does")
    render = commands.add_parser("render", help="draw the pictures and write the url table", **exact)
    render.set_defaults(run="render.command")
    render.add_argument("--folder", type=Path, required=True, help="folder for the pictures")
    render.add_argument("--table", type=Path, required=True, help="parquet file for the url table")
    render.add_argument("--base-url", required=True, help="where the folder is served, as http://127.0.0.1:8000")
    render.add_argument("--rows", type=int, default=4000, help="rows of the table, 16 to 4000 (default)")
    render.add_argument("--seed", type=int, default=0, help="which captions, which faults, in which order")
    render.add_argument("--max-aspect-ratio", type=float, default=1.0, help="above 1: square, wide and tall in turns")
    new = commands.add_parser("new-shape", help="draw a shape that the others do not have, with captions", **exact)
    new.set_defaults(run="render.render_new_shape")
    new.add_argument("--folder", type=Path, required=True, help="folder for the pictures")
    models = commands.add_parser("train-models", help="train the tokenizer, the small CLIP and the small VAE", **exact)
    models.set_defaults(run="train_models.command")
    models.add_argument("--out", type=Path, required=True, help="folder for the models, as shapes/models")
    models.add_argument("--clip-steps", type=int, help="steps of the CLIP, in place of the recipe's")
    models.add_argument(
        "--vae-steps", type=int, nargs="+", dest="vae_cycles", help="steps of the VAE's cycles, likewise"
    )
    models.add_argument("--seed", type=int, default=0, help="of both trainings")
    models.add_argument("--photographs", action="store_true", help="for photographs and any caption, not shapes alone")
    flow = commands.add_parser("flow-models", help="lay them out as Stable Diffusion 3, for local_flow.yaml", **exact)
    flow.set_defaults(run="flow_models.write")
    flow.add_argument("--models", type=Path, required=True, help="folder that train-models wrote, as shapes/models")
    captioner = commands.add_parser("train-captioner", help="train the small captioner", **exact)
    captioner.set_defaults(run="train_captioner.train")
    captioner.add_argument("--out", type=Path, required=True, help="folder for the model, as shapes/captioner")
    captioner.add_argument("--steps", type=int, default=1000, help="1000 (default) take 90 CPU-seconds")
    captioner.add_argument("--seed", type=int, default=0, help="of the training")
    return parser


if __name__ == "__main__":
    sys.exit(main())
