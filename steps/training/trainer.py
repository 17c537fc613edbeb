"""The training loop: optimizer steps and, between them, log lines, validation, checkpoints and the vote on stopping.

Reads the latents through the loader; writes checkpoints and the training log on the head rank. Every rank runs the
same loop and makes the same decisions, which depend only on the samples seen.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from params.layout import VALIDATION_LOSS
from params.programs import TrainArguments
from steps.data.loading.batch_ring import LoadedBatch
from steps.progress import Progress
from steps.training.assembly import Parts
from steps.training.checkpoint_folder import CheckpointManifest
from steps.training.checkpoint_writer import CheckpointWriter
from steps.training.optimizer_step import BatchPlan, learning_rate
from steps.training.ranks import World
from steps.training.stop import Spending, StopVote
from steps.training.training_log import Entry, TrainingLog
from steps.training.window import SkipGuard, SpikeGuard, Window, WindowFigures, check_replicas


@dataclass
class Trainer:
    """One rank's training; `run` may be called once."""

    arguments: TrainArguments
    plan: BatchPlan
    world: World
    parts: Parts
    log: TrainingLog
    skips: SkipGuard
    writer: CheckpointWriter | None
    """On the head rank."""
    vote: StopVote
    spending: Spending
    beat: Callable[[str, int], None]
    """Tells the watchdog what this rank does now."""
    seen_samples: int = 0
    figures: Callable[[], dict[str, float]] = dict
    """What the loader adds to a log line; every rank calls it at the same step."""
    spikes: SpikeGuard = field(default_factory=SpikeGuard)
    _saved_at: int = -1
    _window: Window = field(default_factory=lambda: Window(0))

    def run(self, batches: Iterable[LoadedBatch]) -> bool:
        """Train on the batches that follow `seen_samples`; return whether all were used, or training was stopped."""
        progress = Progress("train", self._total_samples, "samples", done=self.seen_samples)
        self._window = Window(self.seen_samples)
        for batch in self._timed(batches):
            stop = self._step(batch)
            if stop or self._log_is_due():
                self._close_window()
            self._window.leave_out(self._validate_and_save(stop))
            if self.world.is_head:
                progress.set(self.seen_samples, **self._figures())
            if stop:
                return False
        return True

    def finish(self) -> None:
        """Validate and save the final weights unless the last step did; wait until they are on disk."""
        if self.seen_samples not in (one["seen_samples"] for one in self.log.entries if VALIDATION_LOSS in one):
            self._validate()
        if self._saved_at != self.seen_samples:
            self._save()
        if self.writer is not None:
            self.writer.wait()

    @property
    def _total_samples(self) -> int:
        return self.plan.total_samples(self.arguments.training_samples)

    @property
    def verdict(self) -> str:
        """Why a training without budget ended, and how to continue it."""
        return self.spending.verdict(self.seen_samples, self._total_samples, self.log.last("remaining_s") or 0.0)

    def _figures(self) -> dict[str, float]:
        """Return what the progress line shows next to the samples."""
        rate = self.log.last("iterations_per_s")
        if rate is None:
            return {}
        return {"iterations_per_s": rate, **self.spending.figures(self.log.last("remaining_s") or 0.0)}

    def _step(self, batch: LoadedBatch) -> bool:
        """Take a step; return whether the ranks are to stop after it."""
        self.beat("step", self.seen_samples)
        inputs = self.parts.inputs.training(batch, batch.positions)
        self._window.add(self.parts.optimizer_step.take(inputs, self.seen_samples))
        self.seen_samples += self.plan.global_batch_size
        if self.spending.is_over and self.seen_samples < self._total_samples:
            self.vote.ask_for_budget()
        self.vote.cast()
        return self.vote.passed()

    def _timed(self, batches: Iterable[LoadedBatch]) -> Iterator[LoadedBatch]:
        iterator = iter(batches)
        while True:
            self.beat("data", self.seen_samples)
            batch = self._window.timed_data(lambda: next(iterator, None))
            if batch is None:
                return
            yield batch

    def _log_is_due(self) -> bool:
        is_turn = self.seen_samples // self.plan.global_batch_size % self.arguments.log_every_steps == 0
        at_end = self.seen_samples >= self._total_samples
        return is_turn or at_end or self._crossed(self.arguments.save_every_samples)

    def _crossed(self, every_samples: int) -> bool:
        before = self.seen_samples - self.plan.global_batch_size
        return self.seen_samples // every_samples > before // every_samples

    def _close_window(self) -> None:
        """Log the steps of the window, and pass them to the guards."""
        figures = self._window.close(self.world)
        self._window = Window(self.seen_samples)
        batch_samples = self.plan.global_batch_size
        self.skips.note(figures.skipped, figures.first_sample, batch_samples)
        if self.world.is_head:
            self.spikes.note(figures.losses, figures.first_sample, batch_samples)
        self.log.append(self._entry(figures))
        self.spending.note()

    def _entry(self, figures: WindowFigures) -> Entry:
        batch_samples, waited_s = self.plan.global_batch_size, self.parts.gradients.take_waited_s()
        speed = figures.speed(batch_samples, self.world.size, self.parts.utilisation, waited_s)
        remaining_s = (self._total_samples - self.seen_samples) / speed["images_per_s"]
        loss = {} if figures.mean_loss is None else {"training_loss": figures.mean_loss}
        return loss | {
            "learning_rate": learning_rate(self.arguments, self.seen_samples - batch_samples, self._total_samples),
            "seen_samples": self.seen_samples,
            "gradient_norm": figures.gradient_norms[-1],
            "skipped_steps": self.skips.skipped_steps,
            **speed,
            "remaining_s": remaining_s,
            **self.figures(),
            **self.spending.figures(remaining_s),
        }

    def _validate_and_save(self, stop: bool) -> float:
        """Validate and save if due; return the seconds that it took."""
        start_s = time.perf_counter()
        if not stop and self._crossed(self.arguments.validate_every_samples):
            self._validate()
        if stop or self._crossed(self.arguments.save_every_samples):
            self._save()
        return time.perf_counter() - start_s

    def _validate(self) -> None:
        if not self.parts.validation.samples:
            return
        loss = self.parts.validation.loss(self.parts.state, lambda: self.beat("validation", self.seen_samples))
        self.log.append({VALIDATION_LOSS: loss, "seen_samples": self.seen_samples})

    def _save(self) -> None:
        """Hand the state to the writer if all ranks hold the same; of a CPU the live one, which a copy would double."""
        self.beat("checkpoint", self.seen_samples)
        state = self.parts.state
        check_replicas(self.world, state.parameters, self.seen_samples)
        self._saved_at = self.seen_samples
        # Where the ranks divide the state, all of them take part in its snapshot.
        at_once = self.world.device.type == "cpu"
        tensors = state.snapshot(copied=not at_once) if self.writer is not None or state.divided else {}
        if self.writer is None:
            return
        manifest = CheckpointManifest(
            seen_samples=self.seen_samples,
            global_batch_size=self.plan.global_batch_size,
            world_size=self.world.size,
            skipped_steps=self.skips.skipped_steps,
        )
        self.writer.submit(manifest, tensors, self.log.text)
        if at_once:
            self.writer.wait()
