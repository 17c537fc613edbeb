"""The training log: a line of `key=value` pairs for people and metric definitions, a JSON line for programs, trackers.

Writes to stdout and, on the head rank, to training_log.jsonl. A resumed training appends to the checkpoint's entries:
steps after the checkpoint are trained, and logged, again. The head's figures also go to TensorBoard's event files in
<job>/output/tensorboard, which SageMaker copies to S3 during the job if configured to, and, if MLFLOW_TRACKING_URI is
set, to a run named after the job in the experiment MLFLOW_EXPERIMENT_NAME, both by the number of samples seen. A server
that does not answer loses its figures; training continues.
"""

import importlib
import json
import os
import queue
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

Figures = Mapping[str, float | int]

SEEN: Final = "seen_samples"
MLFLOW_URI_VARIABLE: Final = "MLFLOW_TRACKING_URI"
MLFLOW_EXPERIMENT_VARIABLE: Final = "MLFLOW_EXPERIMENT_NAME"
DEFAULT_EXPERIMENT: Final = "sd-pipeline"
# Lines that may wait for a slow server; further ones are dropped.
WAITING_LINES: Final = 1000
CLOSE_TIMEOUT_S: Final = 30.0
Entry = dict[str, float | int]


class TensorBoard:
    """Event files in a folder."""

    def __init__(self, folder: Path) -> None:
        library: Any = importlib.import_module("torch.utils.tensorboard")
        self._writer = library.SummaryWriter(str(folder))

    def note(self, entry: Figures) -> None:
        """Write every figure of an entry, under its own name."""
        for name, value in entry.items():
            if name != SEEN:
                self._writer.add_scalar(name, value, global_step=int(entry[SEEN]))

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()


class MLflow:
    """A run on a tracking server; sends from a thread, so that training never waits for it."""

    def __init__(self, uri: str, experiment: str, run: str, parameters: Mapping[str, Any]) -> None:
        """Begin; nothing is sent yet."""
        self._uri, self._experiment, self._run = uri, experiment, run
        self._parameters = dict(parameters)
        self._waiting: queue.Queue[Figures | None] = queue.Queue(WAITING_LINES)
        self._thread = threading.Thread(target=self._send, name="mlflow", daemon=True)
        self._thread.start()

    def note(self, entry: Figures) -> None:
        """Put an entry into the queue."""
        try:
            self._waiting.put_nowait(dict(entry))
        except queue.Full:
            print("mlflow: the server is too slow; figures are left out", flush=True)

    def close(self) -> None:
        """Wait a limited time until the queue is sent."""
        self._waiting.put(None, timeout=CLOSE_TIMEOUT_S)
        self._thread.join(CLOSE_TIMEOUT_S)

    def _send(self) -> None:
        try:
            self._send_all()
        except Exception as error:
            # Plug-ins of tracking servers raise their own kinds of errors; none of them may end the training.
            reason = " ".join(str(error).split())[:300]
            print(f"mlflow: {type(error).__name__}: {reason}; no figures go there", flush=True)

    def _send_all(self) -> None:
        library: Any = importlib.import_module("mlflow")
        client = library.MlflowClient(tracking_uri=self._uri)
        run_id = self._begin(client)
        metric: Any = importlib.import_module("mlflow.entities").Metric
        while (entry := self._waiting.get()) is not None:
            step, now_ms = int(entry[SEEN]), int(time.time() * 1000)
            metrics = [metric(name, float(value), now_ms, step) for name, value in entry.items() if name != SEEN]
            client.log_batch(run_id, metrics=metrics)
        client.set_terminated(run_id)

    def _begin(self, client: Any) -> str:
        existing = client.get_experiment_by_name(self._experiment)
        experiment_id = existing.experiment_id if existing else client.create_experiment(self._experiment)
        run_id: str = client.create_run(experiment_id, run_name=self._run).info.run_id
        for name, value in self._parameters.items():
            client.log_param(run_id, name, value)
        return run_id


Tracker = TensorBoard | MLflow


def trackers(
    folder: Path, run: str, parameters: Mapping[str, Any], environment: Mapping[str, str] = os.environ
) -> list[Tracker]:
    """Return the trackers of a job: for the head rank."""
    uri = environment.get(MLFLOW_URI_VARIABLE)
    if not uri:
        return [TensorBoard(folder)]
    experiment = environment.get(MLFLOW_EXPERIMENT_VARIABLE, DEFAULT_EXPERIMENT)
    return [TensorBoard(folder), MLflow(uri, experiment, run, parameters)]


class TrainingLog:
    """Entries of one training, oldest first."""

    def __init__(self, path: Path | None, history: str = "", trackers: Sequence[Tracker] = ()) -> None:
        """Begin with a checkpoint's entries; without `path` write nothing. `trackers` receive every new entry."""
        self._path, self._trackers = path, trackers
        self.entries: list[Entry] = [json.loads(line) for line in history.splitlines()]
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(self.text, encoding="utf-8")

    @property
    def text(self) -> str:
        """The entries as JSON lines."""
        return "".join(f"{json.dumps(entry)}\n" for entry in self.entries)

    def append(self, entry: Entry) -> None:
        self.entries.append(entry)
        if self._path is not None:
            print(to_line(entry), flush=True)
            with self._path.open("a", encoding="utf-8") as file:
                file.write(f"{json.dumps(entry)}\n")
        for tracker in self._trackers:
            tracker.note(entry)

    def close(self) -> None:
        """Let the trackers send what is still queued."""
        for tracker in self._trackers:
            tracker.close()

    def last(self, key: str) -> float | int | None:
        return next((entry[key] for entry in reversed(self.entries) if key in entry), None)


def to_line(entry: Entry) -> str:
    """Return `training_loss=0.1234 seen_samples=640 ...`, as `params.layout.metric_regex` finds it."""
    texts = {key: str(value) if isinstance(value, int) else f"{value:.6g}" for key, value in entry.items()}
    return " ".join(f"{key}={text}" for key, text in texts.items())
