"""This project's training: the real loader, inputs and optimizer step, and a log window that is read every 50 steps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from benchmarks.train.contest import Step, Task
from params.programs import TrainArguments
from steps.training.assembly import assemble, loader_from, warm_up
from steps.training.batch_plan import batch_plan
from steps.training.ranks import World
from steps.training.window import Window

# Far more than anyone measures.
ENDLESS_STEPS = 1_000_000


def arguments_of(task: Task, ranks: int = 1) -> TrainArguments:
    """Return the recipe of the script with this program's defaults."""
    batch = task.batch_size * ranks
    return TrainArguments(
        training_samples=ENDLESS_STEPS * batch,
        global_batch_size=batch,
        micro_batch_size=task.batch_size,
        warmup_samples=0,
        precision="bfloat16" if task.precision == "bfloat16" else "float32",
        compile=task.compile,
        cuda_graphs=task.cuda_graphs,
    )


@contextmanager
def ours(task: Task, world: World | None = None, changes: Mapping[str, Any] | None = None) -> Iterator[Step]:
    """Yield a step of this rank, the only one unless `world` says otherwise, with some settings changed."""
    world = world or World(rank=0, size=1, local_rank=0, device=task.device)
    arguments = arguments_of(task, world.size).model_copy(update=dict(changes or {}))
    plan = batch_plan(arguments.global_batch_size, arguments.micro_batch_size, world.size)
    parts = assemble(arguments, plan, world, task.latents, task.pretrained, task.pretrained)
    warm_up(parts, plan)
    batches = iter(loader_from(parts, arguments, plan, world, 0))
    window, seen_samples = Window(0), 0

    def step() -> None:
        nonlocal window, seen_samples
        batch = next(batches)
        window.add(parts.optimizer_step.take(parts.inputs.training(batch, batch.positions), seen_samples))
        seen_samples += plan.global_batch_size
        if len(window) == arguments.log_every_steps:
            window.close(world)
            window = Window(seen_samples)

    try:
        yield step
    finally:
        batches.close()  # type: ignore[attr-defined]
