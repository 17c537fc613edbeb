"""The endpoint against a bare loop over the same diffusers pipeline, in the same run.

    python -m benchmarks.serve [--json] [--rounds 5] [--pictures 12] [--model-dir DIR] [--threads N] [--provenance]

Reads a StableDiffusionPipeline folder; by default the small model of shapes/models with an untrained UNet of its
configuration (what is drawn does not change the time). Starts `python -m steps serve` on loopback, and measures in
turns: the bare loop and one client, three pictures each; then the bare loop and closed loads of 4 and 16 clients. Every
picture has a prompt and a seed of its own. Prints images/s, latency percentiles, and the ratios of docs/benchmarks.md.
"""

import functools
import itertools
import signal
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import psutil
import torch

from benchmarks import harness
from benchmarks.harness import ROOT, SMALL_MODEL
from params.arguments import to_environment
from params.programs import ServeArguments
from params.settings import load_settings
from shapes import captions
from steps.model import pretrained
from steps.model.families import denoiser_of, load_pipeline
from steps.serving.logs import quiet_libraries

BARE, ONE, FOUR, SIXTEEN = "bare loop", "1 client", "4 clients", "16 clients"
SHOWN = {"inference_steps", "guidance_scale", "sampler", "default_size_px", "precision", "max_batch_size"}
# More than one, to show the cost of reusing a connection at once.
TURN = 3

Draw = Callable[[str, int], None]
"""Draws a prompt's picture from a seed."""


class DrawingTurn(NamedTuple):
    latencies_s: list[float]
    elapsed_s: float
    cpu_s: float
    """CPU-seconds of the process that draws."""

    @property
    def images_per_s(self) -> float:
        return len(self.latencies_s) / self.elapsed_s


def main(argv: list[str]) -> int:
    flags = harness.parser(
        "benchmarks.serve",
        __doc__,
        rounds=(5, "turns of all loads"),
        pictures=(12, "pictures of the bare loop in each round"),
        threads=(0, "torch threads on both sides; 0: torch's own choice"),
    )
    flags.add_argument("--provenance", action="store_true", help="with manifest and watermark, as endpoints do it")
    flags.add_argument("--model-dir", type=Path, help="StableDiffusionPipeline folder")
    options = flags.parse_args(argv)
    # The server ends with this process, even on SIGTERM.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    arguments = serve_arguments(options.threads, options.provenance)
    quiet_libraries()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        base_dir = Path(folder)
        model_dir = options.model_dir or write_model(base_dir / "small")
        (base_dir / "model").symlink_to(model_dir.resolve())
        bare = bare_loop(base_dir / "model", arguments)
        with endpoint(base_dir, arguments) as (client, process):
            ask = functools.partial(ask_endpoint, client)
            one, many = measure(bare, ask, process, options.rounds, options.pictures)
    harness.print_result(results(one, many, arguments), options.json)
    return 0


def serve_arguments(threads: int, provenance: bool = False) -> ServeArguments:
    """Return the endpoint settings of the local parameter set."""
    endpoint = load_settings(ROOT / "params" / "local.yaml").endpoint
    values = {name: getattr(endpoint, name) for name in ServeArguments.model_fields}
    values |= {"threads": threads, "provenance": provenance, "watermark": provenance}
    return ServeArguments.model_validate(values | {"host": "127.0.0.1", "model_name": "benchmark"})


def write_model(folder: Path) -> Path:
    from diffusers import StableDiffusionPipeline

    unet = denoiser_of(SMALL_MODEL).new(SMALL_MODEL, seed=0)
    parts = {"unet": unet, "safety_checker": None, "feature_extractor": None}
    StableDiffusionPipeline.from_pretrained(SMALL_MODEL, local_files_only=True, **parts).save_pretrained(folder)
    return folder


@contextmanager
def endpoint(base_dir: Path, arguments: ServeArguments) -> Iterator[tuple[httpx.Client, psutil.Process]]:
    """Serve <base_dir>/model on loopback; yield a client and the server's process once it is ready."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    environment = to_environment(arguments.model_dump(), "SERVE_")
    environment |= {"SAGEMAKER_BASE_DIR": str(base_dir), "SAGEMAKER_BIND_TO_PORT": port}
    with (
        harness.process([sys.executable, "-m", "steps", "serve"], **environment) as server,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120) as client,
    ):
        while not is_ready(client):
            if server.poll() is not None:
                raise SystemExit("error: the server ended before it answered; its log is above")
            time.sleep(0.1)
        yield client, psutil.Process(server.pid)


def is_ready(client: httpx.Client) -> bool:
    try:
        return client.get("/ping").is_success
    except httpx.TransportError:
        return False


def bare_loop(model_dir: Path, arguments: ServeArguments) -> Draw:
    """Return a function that draws one picture as a script around diffusers would."""
    pipeline: Any = load_pipeline(model_dir, getattr(torch, arguments.precision))
    pipeline.scheduler = pretrained.sampler(arguments.sampler, pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    pipeline = pipeline.to("cuda" if torch.cuda.is_available() else "cpu")

    def draw(prompt: str, seed: int) -> None:
        pipeline(
            prompt,
            generator=torch.Generator("cpu").manual_seed(seed),
            num_inference_steps=arguments.inference_steps,
            guidance_scale=arguments.guidance_scale,
            width=arguments.default_size_px,
            height=arguments.default_size_px,
        )

    return draw


def measure(
    bare: Draw, ask: Draw, process: psutil.Process, rounds: int, pictures: int
) -> tuple[dict[str, list[DrawingTurn]], dict[str, list[DrawingTurn]]]:
    """Return the turns of the bare loop with one client, and with many."""
    # No prompt comes again for thousands of pictures: no side may answer from a cache.
    jobs = enumerate(itertools.cycle(caption.text() for caption in captions.every()))

    def side(draw: Draw, count: int, clients: int = 1) -> Callable[[int], DrawingTurn]:
        return lambda _: take_turn(draw, psutil.Process() if draw is bare else process, jobs, count, clients)

    # An uncounted turn of each, so that none pays for what is slow only the first time.
    one = {BARE: side(bare, TURN), ONE: side(ask, TURN)}
    many = {BARE: side(bare, pictures), FOUR: side(ask, 4 * pictures, 4), SIXTEEN: side(ask, 4 * pictures, 16)}
    turns = -(-rounds * pictures // TURN)
    return harness.take_turns(one, turns, uncounted=1), harness.take_turns(many, rounds, uncounted=1)


def take_turn(
    draw: Draw, process: psutil.Process, jobs: Iterator[tuple[int, str]], count: int, clients: int
) -> DrawingTurn:
    """Draw pictures as `clients` do, each of which asks for its next one when it has the last."""

    def timed(job: tuple[int, str]) -> float:
        seed, prompt = job
        before_s = time.perf_counter()
        draw(prompt, seed)
        return time.perf_counter() - before_s

    own = list(itertools.islice(jobs, count))
    started_s, started_cpu_s = time.perf_counter(), harness.cpu_s(process)
    if clients == 1:
        latencies_s = [timed(job) for job in own]
    else:
        with ThreadPoolExecutor(clients) as threads:
            latencies_s = list(threads.map(timed, own))
    return DrawingTurn(latencies_s, time.perf_counter() - started_s, harness.cpu_s(process) - started_cpu_s)


def ask_endpoint(client: httpx.Client, prompt: str, seed: int) -> None:
    answer = client.post("/invocations", json={"prompt": prompt, "seed": seed})
    if answer.status_code != 200:
        raise SystemExit(f"error: the endpoint answered {answer.status_code}: {answer.text[:200]}")


def results(
    one: dict[str, list[DrawingTurn]], many: dict[str, list[DrawingTurn]], arguments: ServeArguments
) -> dict[str, Any]:
    # Turn against turn: a machine that others share grows slow and fast again for seconds.
    one_s = {name: [statistics.median(turn.latencies_s) for turn in turns] for name, turns in one.items()}
    total_cpu_s = {name: sum(turn.cpu_s for turn in turns) for name, turns in one.items()}
    rates = {name: [turn.images_per_s for turn in turns] for name, turns in many.items()}
    return {
        "ratios": {
            "overhead_one_client": harness.median_ratio(one_s[ONE], one_s[BARE]) - 1,
            "cpu_one_client": total_cpu_s[ONE] / total_cpu_s[BARE] - 1,
            "throughput_16_clients": harness.median_ratio(rates[SIXTEEN], rates[BARE]),
        },
        "loads": {name: summary(turns) for name, turns in (many | one).items()},
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "settings": arguments.model_dump(include=SHOWN),
    }


def summary(turns: list[DrawingTurn]) -> dict[str, float]:
    latencies_s = [seconds for turn in turns for seconds in turn.latencies_s]
    cuts = statistics.quantiles(latencies_s, n=100, method="inclusive")
    figures = {"images_per_s": statistics.median(turn.images_per_s for turn in turns), "pictures": len(latencies_s)}
    return figures | {f"p{percent}_s": cuts[percent - 1] for percent in (50, 95, 99)}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
