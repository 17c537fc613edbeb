"""Measures the speed of training at each micro-batch size, and recommends one.

Reads the channels `latents` and `pretrained`. Prints a line for each size, which the metric definitions of the training
log read, and writes <output>/throughput.json. `python -m steps throughput` runs it, or a training job whose
hyperparameter throughput_micro_batch_sizes names the sizes.

Every iteration is one optimizer step over one micro-batch on each rank: batch = micro-batch x ranks. Training with
gradient accumulation is slightly faster, because it steps less often.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from params.files import write_json
from params.layout import PRETRAINED_CHANNEL, THROUGHPUT_FILE
from params.programs import TrainArguments
from steps.container import Container
from steps.errors import StepError
from steps.training.assembly import Parts, assemble, latents_location, loader_from, warm_up
from steps.training.optimizer_step import BatchPlan, OutOfMemoryError
from steps.training.ranks import World
from steps.training.starting_weights import initial_folder
from steps.training.training_log import Entry, to_line
from steps.training.utilisation import start_over
from steps.training.window import Window, WindowFigures

WARM_UP_STEPS: Final = 2
MIN_STEPS: Final = 3
# Smaller micro-batches leave memory free: a larger one must be faster by this factor.
WORTH: Final = 1.01


@dataclass(frozen=True)
class Sweep:
    """One rank's part of the measurement."""

    arguments: TrainArguments
    container: Container
    world: World
    beat: Callable[[str, int], None]
    """Tells the watchdog what this rank does now."""

    def run(self) -> int:
        """Measure the sizes, the smallest first, until one does not fit into memory; StepError if none fits."""
        entries: list[Entry] = []
        for size in sorted(set(self.arguments.throughput_micro_batch_sizes)):
            try:
                entry = self._measure(size)
            except OutOfMemoryError:
                self._say(f"micro_batch_size={size}: out of memory")
                break
            entries.append(entry)
            self._say(to_line(entry))
            if self.world.is_head:
                result = {"ranks": self.world.size, "sizes": entries, "best": best_of(entries)}
                write_json(self.container.output_data_dir / THROUGHPUT_FILE, result)
        best = best_of(entries)
        self._say(f"best micro_batch_size={best['micro_batch_size']} images_per_s={best['images_per_s']:.6g}")
        return 0

    def _measure(self, size: int) -> Entry:
        self.beat("set-up", 0)
        start_over(self.world.device)
        plan = BatchPlan(size * self.world.size, size, self.world.size)
        sizes = {"global_batch_size": plan.global_batch_size, "micro_batch_size": size, "warmup_samples": 0}
        arguments = self.arguments.model_copy(update=sizes)
        latents = latents_location(arguments, self.container)
        pretrained = self.container.channel_dir(PRETRAINED_CHANNEL)
        parts = assemble(arguments, plan, self.world, latents, pretrained, initial_folder(arguments, self.container))
        self.beat("first pass", 0)
        warm_up(parts, plan)
        batches = iter(loader_from(parts, arguments, plan, self.world, 0))
        try:
            return self._timed(parts, plan, batches)
        finally:
            batches.close()  # type: ignore[attr-defined]

    def _timed(self, parts: Parts, plan: BatchPlan, batches: Any) -> Entry:
        self._steps(parts, plan, batches, WARM_UP_STEPS, 0)
        once = self._steps(parts, plan, batches, 1, WARM_UP_STEPS)
        wanted = max(MIN_STEPS, round(self.arguments.throughput_s / once.elapsed_s))
        steps = int(self.world.broadcast_json(wanted))
        parts.gradients.take_waited_s()
        figures = self._steps(parts, plan, batches, steps, WARM_UP_STEPS + 1)
        waited_s = parts.gradients.take_waited_s()
        speed = figures.speed(plan.global_batch_size, self.world.size, parts.utilisation, waited_s)
        return {"micro_batch_size": plan.micro_batch_size, "batch_size": plan.global_batch_size, **speed}

    def _steps(self, parts: Parts, plan: BatchPlan, batches: Any, steps: int, before: int) -> WindowFigures:
        window = Window(0)
        for step in range(before, before + steps):
            seen_samples = step * plan.global_batch_size
            self.beat("step", seen_samples)
            batch = window.timed_data(lambda: next(batches))
            window.add(parts.optimizer_step.take(parts.inputs.training(batch, batch.positions), seen_samples))
        return window.close(self.world)

    def _say(self, line: str) -> None:
        if self.world.is_head:
            print(line, flush=True)


def best_of(entries: list[Entry]) -> Entry:
    """Return the smallest micro-batch whose images/s are within one percent of the fastest."""
    if not entries:
        raise StepError(
            "out of memory at the smallest of throughput_micro_batch_sizes: name smaller ones, set "
            "gradient_checkpointing, or take a device with more memory"
        )
    fastest = max(entry["images_per_s"] for entry in entries)
    return next(entry for entry in entries if entry["images_per_s"] * WORTH >= fastest)
