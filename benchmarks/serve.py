"""The endpoint against a bare loop over the same diffusers pipeline, in the same run.

    python -m benchmarks.serve [--json] [--rounds 5] [--pictures 12] [--model-dir DIR] [--threads N]

Reads a StableDiffusionPipeline folder; by default the small model of shapes/models with an untrained UNet of its
configuration (what is drawn does not change the time). Starts `python -m steps serve` on loopback, and measures in
turns, so that both sides see the same machine: the bare loop and one client, three pictures each, then closed loads of
4 and 16 clients. Every picture has a prompt and a seed of its own. Prints images/s and latency percentiles for each,
and three ratios:

    overhead_one_client    (median time of a picture with one client) / (bare loop's) - 1; 0.03 is 3 %
    cpu_one_client         (CPU seconds of the server's process for those) / (the bare loop's) - 1: other work on the
                           machine makes both wait, but not compute more
    throughput_16_clients  (images/s with 16 clients) / (bare loop's in the same round), median over the rounds
"""

from __future__ import annotations

import asyncio
import itertools
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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

CLIENTS = (1, 4, 16)
BARE = "bare loop"
# More than one, to show the cost of reusing a connection at once.
TURN = 3


@dataclass
class Load:
    latencies_s: list[float] = field(default_factory=list)
    images_per_s: list[float] = field(default_factory=list)
    """One figure for each round."""
    cpu_s: float = 0.0
    """CPU-seconds of the process that draws, if counted."""

    def add(self, latencies_s: Sequence[float], elapsed_s: float) -> None:
        self.latencies_s += latencies_s
        self.images_per_s.append(len(latencies_s) / elapsed_s)

    def summary(self) -> dict[str, float]:
        cuts = statistics.quantiles(self.latencies_s, n=100, method="inclusive")
        figures = {"images_per_s": statistics.median(self.images_per_s), "pictures": len(self.latencies_s)}
        return figures | {f"p{percent}_s": cuts[percent - 1] for percent in (50, 95, 99)}


def main(argv: list[str]) -> int:
    flags = harness.parser(
        "benchmarks.serve",
        __doc__,
        rounds=(5, "turns of all loads"),
        pictures=(12, "pictures of the bare loop in each round"),
        threads=(0, "torch threads on both sides; 0: torch's own choice"),
    )
    flags.add_argument("--model-dir", type=Path, help="StableDiffusionPipeline folder")
    options = flags.parse_args(argv)
    # The server ends with this process, even on SIGTERM.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    arguments = serve_arguments(options.threads)
    quiet_libraries()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        base_dir = Path(folder)
        model_dir = options.model_dir or write_model(base_dir / "small")
        (base_dir / "model").symlink_to(model_dir.resolve())
        bare = bare_loop(base_dir / "model", arguments)
        with server(base_dir, arguments) as (url, process):
            loads = measure(bare, url, process, options.rounds, options.pictures)
    harness.print_result(results(loads, arguments), options.json)
    return 0


def serve_arguments(threads: int) -> ServeArguments:
    """Return the endpoint settings of the local parameter set."""
    endpoint = load_settings(ROOT / "params" / "local.yaml").endpoint
    values = {name: getattr(endpoint, name) for name in ServeArguments.model_fields}
    return ServeArguments.model_validate(values | {"threads": threads, "host": "127.0.0.1", "model_name": "benchmark"})


def write_model(folder: Path) -> Path:
    from diffusers import StableDiffusionPipeline

    unet = denoiser_of(SMALL_MODEL).new(SMALL_MODEL, seed=0)
    parts = {"unet": unet, "safety_checker": None, "feature_extractor": None}
    StableDiffusionPipeline.from_pretrained(SMALL_MODEL, local_files_only=True, **parts).save_pretrained(folder)
    return folder


def bare_loop(model_dir: Path, arguments: ServeArguments) -> Callable[[str, int], None]:
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


@contextmanager
def server(base_dir: Path, arguments: ServeArguments) -> Iterator[tuple[str, psutil.Process]]:
    """Run the endpoint as a process; yields its address and the process when it is ready."""
    port = harness.free_port()
    environment = to_environment(arguments.model_dump(), "SERVE_")
    environment |= {"SAGEMAKER_BASE_DIR": str(base_dir), "SAGEMAKER_BIND_TO_PORT": str(port)}
    with harness.process([sys.executable, "-m", "steps", "serve"], **environment) as process:
        url = f"http://127.0.0.1:{port}"
        harness.wait_for_answer(f"{url}/ping", process)
        yield url, psutil.Process(process.pid)


def measure(
    bare: Callable[[str, int], None], url: str, process: psutil.Process, rounds: int, pictures: int
) -> dict[str, Load]:
    loads = {BARE: Load()} | {f"{clients} clients": Load() for clients in CLIENTS}
    # No prompt comes again for thousands of pictures: no side may answer from a cache.
    jobs = enumerate(itertools.cycle(caption.text() for caption in captions.every()))
    # An uncounted turn of each load, so that none pays for what is slow only the first time.
    for seed, prompt in itertools.islice(jobs, 2):
        bare(prompt, seed)
    for clients in CLIENTS:
        asyncio.run(run_clients(url, clients, list(itertools.islice(jobs, 2 * clients))))
    for _ in range(rounds):
        own = [next(jobs) for _ in range(2 * pictures)]
        asyncio.run(in_turns(bare, url, process, own, loads))
        for clients in CLIENTS[1:]:
            own = list(itertools.islice(jobs, pictures * min(clients, 4)))
            loads[f"{clients} clients"].add(*asyncio.run(run_clients(url, clients, own)))
    return loads


async def in_turns(
    bare: Callable[[str, int], None],
    url: str,
    process: psutil.Process,
    jobs: Sequence[tuple[int, str]],
    loads: Mapping[str, Load],
) -> None:
    """Draw by the bare loop and by one client, a few pictures in turns: other load affects both alike."""
    sides = ((loads[BARE], psutil.Process(), list[float]()), (loads["1 clients"], process, list[float]()))
    async with httpx.AsyncClient(timeout=120) as connection:
        for number, (seed, prompt) in enumerate(jobs):
            load, drawing, latencies_s = sides[number // TURN % 2]
            before_s, before_cpu_s = time.perf_counter(), cpu_s(drawing)
            if drawing is process:
                await ask(connection, url, prompt, seed)
            else:
                bare(prompt, seed)
            latencies_s.append(time.perf_counter() - before_s)
            load.cpu_s += cpu_s(drawing) - before_cpu_s
    for load, _, latencies_s in sides:
        load.add(latencies_s, sum(latencies_s))


def cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


async def ask(connection: httpx.AsyncClient, url: str, prompt: str, seed: int) -> None:
    answer = await connection.post(f"{url}/invocations", json={"prompt": prompt, "seed": seed})
    if answer.status_code != 200:
        raise SystemExit(f"error: the endpoint answered {answer.status_code}: {answer.text[:200]}")


async def run_clients(url: str, clients: int, jobs: Sequence[tuple[int, str]]) -> tuple[list[float], float]:
    """Answer all jobs with `clients` clients, each of which sends its next request when it has its picture."""
    waiting, latencies_s = iter(jobs), []
    limits = httpx.Limits(max_connections=clients, max_keepalive_connections=clients)

    async def client(connection: httpx.AsyncClient) -> None:
        for seed, prompt in waiting:
            before_s = time.perf_counter()
            await ask(connection, url, prompt, seed)
            latencies_s.append(time.perf_counter() - before_s)

    async with httpx.AsyncClient(timeout=120, limits=limits) as connection:
        started_s = time.perf_counter()
        await asyncio.gather(*(client(connection) for _ in range(clients)))
        return latencies_s, time.perf_counter() - started_s


def results(loads: dict[str, Load], arguments: ServeArguments) -> dict[str, Any]:
    bare = loads[BARE].images_per_s
    median_s = {name: statistics.median(loads[name].latencies_s) for name in (BARE, "1 clients")}
    return {
        "ratios": {
            "overhead_one_client": median_s["1 clients"] / median_s[BARE] - 1,
            "cpu_one_client": loads["1 clients"].cpu_s / loads[BARE].cpu_s - 1,
            "throughput_16_clients": harness.median_ratio(loads["16 clients"].images_per_s, bare),
        },
        "loads": {name: load.summary() for name, load in loads.items()},
        "rounds": len(bare),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "settings": arguments.model_dump(
            include={"inference_steps", "guidance_scale", "sampler", "default_size_px", "precision", "max_batch_size"}
        ),
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
