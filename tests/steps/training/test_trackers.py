"""What the training log says is in TensorBoard and MLflow, too; and a server that is away costs nothing else."""

from pathlib import Path

import pytest
from mlflow import MlflowClient
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from steps.training.training_log import MLflow, TensorBoard, TrainingLog, trackers

ENTRIES = ({"seen_samples": 64, "training_loss": 0.5, "mfu": 0.25}, {"seen_samples": 128, "training_loss": 0.25})


def test_tensorboard_holds_every_figure_at_its_sample(tmp_path: Path) -> None:
    log = TrainingLog(tmp_path / "log.jsonl", trackers=[TensorBoard(tmp_path / "tensorboard")])
    for entry in ENTRIES:
        log.append(dict(entry))
    log.close()
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("training_loss")] == [(64, 0.5), (128, 0.25)]
    assert [(event.step, event.value) for event in events.Scalars("mfu")] == [(64, 0.25)]


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_mlflow_has_a_run_of_the_jobs_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    uri = (tmp_path / "mlruns").as_uri()
    tracker = MLflow(uri, "shapes", "job-1", {"learning_rate": 1e-4})
    for entry in ENTRIES:
        tracker.note(entry)
    tracker.close()
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("shapes")
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.run_name, run.info.status) == ("job-1", "FINISHED")
    assert run.data.params == {"learning_rate": "0.0001"}
    history = client.get_metric_history(run.info.run_id, "training_loss")
    assert [(metric.step, metric.value) for metric in history] == [(64, 0.5), (128, 0.25)]


def test_a_server_that_is_away_is_said_and_no_more(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No store of that kind: as wrong as an address can be, and nobody waits for the network."""
    tracker = MLflow("nowhere://127.0.0.1", "shapes", "job-1", {})
    tracker.note(ENTRIES[0])
    tracker.close()
    assert "no figures go there" in capsys.readouterr().out


def test_mlflow_is_there_where_its_address_is(tmp_path: Path) -> None:
    (board,) = trackers(tmp_path, "job-1", {}, environment={})
    assert isinstance(board, TensorBoard)
    board.close()
    both = trackers(tmp_path, "job-1", {}, environment={"MLFLOW_TRACKING_URI": "nowhere://127.0.0.1"})
    assert [type(tracker) for tracker in both] == [TensorBoard, MLflow]
    for tracker in both:
        tracker.close()
