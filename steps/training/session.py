"""One rank's training from its channels to its model: resumes, trains, exports.

Reads the channels `latents` (or --latents-uri) and `pretrained`, and checkpoints of the same training; writes
checkpoints and, at the end, the model. `steps.training.job` runs it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from params.files import write_text
from params.layout import PRETRAINED_CHANNEL, TRAINERS_GROUP, TRAINING_LOG_FILE, VALIDATION_LOSS
from params.programs import TrainArguments
from steps.artifact import IDENTITY_FILE, to_text
from steps.container import Container
from steps.errors import StepError
from steps.training.assembly import Parts, assemble, latents_location, loader_from, warm_up
from steps.training.checkpoint_folder import CheckpointFolder
from steps.training.checkpoint_writer import CheckpointWriter, lock_folder, watching
from steps.training.export import export_model, write_record
from steps.training.identity import WITHOUT_EFFECT, identity_digest, lineage, training_identity
from steps.training.online import online_data
from steps.training.optimizer_step import BatchPlan
from steps.training.ranks import LostRankError, World
from steps.training.resume import Beginning, lengthen, prepare, resume
from steps.training.starting_weights import base_model, former_lineage, initial_folder
from steps.training.stop import STOPPED_STATUS, Reason, Spending, StopVote
from steps.training.trainer import Trainer
from steps.training.training_log import TrainingLog, to_line, trackers
from steps.training.watchdog import Watchdog
from steps.training.window import SkipGuard


@dataclass(frozen=True)
class Session:
    """What one rank trains, and where it reads and writes."""

    arguments: TrainArguments
    plan: BatchPlan
    container: Container
    world: World
    watchdog: Watchdog
    vote: StopVote

    def run(self) -> int:
        """Train; return 0, or STOPPED_STATUS if the job had to stop before the end."""
        pretrained = self.container.channel_dir(PRETRAINED_CHANNEL)
        latents = latents_location(self.arguments, self.container)
        initial = initial_folder(self.arguments, self.container)
        read = training_identity(self.arguments, pretrained, initial, latents) if self.world.is_head else None
        identity = self.world.broadcast_json(read)
        with (
            self._checkpoints(identity) as folder,
            watching(folder, self.arguments.checkpoints_uri, self.arguments.max_checkpoint_lag_s),
        ):
            self.watchdog.beat("set-up", 0)
            parts = assemble(self.arguments, self.plan, self.world, latents, pretrained, initial)
            self.watchdog.beat("first pass", 0)
            warm_up(parts, self.plan)
            if self.arguments.compile:
                parts.validation.warm_up(parts.state.network)
            # After the first passes: they show how the ranks divide what a checkpoint holds.
            beginning = resume(parts.state, folder, self.world)
            return self._train(parts, beginning, folder, identity)

    def _train(
        self, parts: Parts, beginning: Beginning, folder: CheckpointFolder | None, identity: dict[str, Any]
    ) -> int:
        trainer = self._trainer(parts, beginning, folder)
        with online_data(self.arguments, self.container, self.plan, self.world) as online:
            if online is None:
                loader = loader_from(parts, self.arguments, self.plan, self.world, beginning.seen_samples)
            else:
                loader, trainer.figures = online.loader_from(beginning.seen_samples), online.figures
            complete = trainer.run(loader)
        if complete:
            trainer.finish()
        if trainer.writer is not None:
            trainer.writer.close()
        trainer.log.close()
        if not complete:
            print(f"stopped after {trainer.seen_samples} samples", flush=True)
            self._raise_if_over_budget(trainer)
            return STOPPED_STATUS
        # A block that several ranks could not have counts once.
        lost_samples = loader.samples_in(self.world.sum_(loader.unreadable_blocks()))
        self.watchdog.stop()
        with parts.state.averaged():
            if folder is not None:
                self._export(trainer, identity, lost_samples)
                # Last: a job that is killed while it exports must export again when it restarts, not train again.
                folder.mark_finished(self.container.job_name, trainer.seen_samples, self._course)
        return 0

    def _trainer(self, parts: Parts, beginning: Beginning, folder: CheckpointFolder | None) -> Trainer:
        cluster = self.container.cluster()
        hosts = len(cluster.groups.get(TRAINERS_GROUP, cluster.hosts))
        log, writer = self._log(folder, beginning), CheckpointWriter(folder) if folder else None
        skips = SkipGuard(self.arguments.max_skipped_steps, beginning.skipped_steps)
        spending = Spending(self.arguments, hosts, folder.folder if folder else None)
        own = (self.arguments, self.plan, self.world, parts, log, skips, writer, self.vote, spending)
        return Trainer(*own, beat=self.watchdog.beat, seen_samples=beginning.seen_samples)

    def _log(self, folder: CheckpointFolder | None, beginning: Beginning) -> TrainingLog:
        if folder is None:
            return TrainingLog(None, beginning.log)
        name, settings = self.container.job_name, self.arguments.model_dump(mode="json")
        tracked = trackers(self.container.tensorboard_dir, name, settings)
        return TrainingLog(folder.folder / TRAINING_LOG_FILE, beginning.log, tracked)

    def _raise_if_over_budget(self, trainer: Trainer) -> None:
        """Fail with the reason, on all ranks at once: a rank that ended earlier would cost the head's checkpoint."""
        if self.vote.reason is not Reason.BUDGET:
            return
        self.watchdog.stop()
        reason = str(self.world.broadcast_json(trainer.verdict if self.world.is_head else None))
        raise StepError(reason) if self.world.is_head else LostRankError(reason)

    def _export(self, trainer: Trainer, identity: dict[str, Any], lost_samples: int) -> None:
        log, seen_samples = trainer.log, trainer.seen_samples
        skipped_steps, job_name = trainer.skips.skipped_steps, self.container.job_name
        origin = lineage(self.arguments, identity, job_name, self.world, seen_samples, skipped_steps, log)
        origin["lost_samples"] = lost_samples
        origin["initial_model"] = former_lineage(self.arguments, self.container)
        origin["base_model"] = base_model(self.arguments, self.container, identity)
        pretrained = self.container.channel_dir(PRETRAINED_CHANNEL)
        export_model(self.container.model_dir, pretrained, trainer.parts.state, self.arguments, log.text, origin)
        write_record(self.container.output_data_dir, log.text, origin)
        last = {key: log.last(key) for key in ("training_loss", VALIDATION_LOSS, "seen_samples")}
        # SageMaker takes a metric's last value as the job's: the search compares trials by it.
        print(to_line({key: value for key, value in last.items() if value is not None}), flush=True)

    @property
    def _course(self) -> dict[str, Any]:
        """The settings that do not affect the weights."""
        return self.arguments.model_dump(mode="json", include=set(WITHOUT_EFFECT))

    @contextmanager
    def _checkpoints(self, identity: dict[str, Any]) -> Iterator[CheckpointFolder | None]:
        """Yield the folder on the head rank, the only one that uses it, and None on the others."""
        if not self.world.is_head:
            yield None
            return
        path = self.container.checkpoint_dir / identity_digest(identity)
        folder = CheckpointFolder(path, self.arguments.keep_checkpoints)
        with lock_folder(path):
            prepared = prepare(folder, self.container.job_name, self._course)
            # A trial has its own budget, and all trials share a volume: each starts from its own beginning.
            if prepared.folder == path and not prepared.paths() and not self.container.is_trial:
                prepared = lengthen(prepared, identity, self.plan)
            # A later job can then say what makes it another training.
            write_text(prepared.folder / IDENTITY_FILE, to_text(identity))
            yield prepared
