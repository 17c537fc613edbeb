"""CloudWatch Logs after a restart: the log files of earlier jobs, put back into moto."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

from pipeline_definition.local.job_logs import PROCESSING_GROUP, TRAINING_GROUP, put_lines
from pipeline_definition.local.jobs import LOG_FOLDER
from pipeline_definition.local.records import Record
from pipeline_definition.local.services import Services

_MAX_LINES = 10_000
_MAX_JOBS = 100


def restore_logs(services: Services) -> None:
    """Read the logs of the newest jobs; the time of all lines is that of the file."""
    kinds = (
        (services.processing_jobs, "ProcessingJob", PROCESSING_GROUP),
        (services.training_jobs, "TrainingJob", TRAINING_GROUP),
    )
    for records, prefix, group in kinds:
        newest = sorted(records.all(), key=lambda record: -float(record["CreationTime"]))[:_MAX_JOBS]
        for record in newest:
            for path in _log_files(record):
                stream = f"{record[f'{prefix}Name']}/{path.stem}-{int(record['CreationTime'])}"
                with path.open(encoding="utf-8", errors="replace") as file:
                    lines = [line.rstrip("\n") for line in itertools.islice(file, _MAX_LINES)]
                if lines:
                    put_lines(group, stream, lines, path.stat().st_mtime)


def _log_files(record: Record) -> Iterator[Path]:
    folder = record.get(LOG_FOLDER)
    return iter(sorted(Path(folder).glob("*.log"))) if folder else iter(())
