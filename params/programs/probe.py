"""The probe: the settings of what one host looks at, in a job of minutes, and a line of what it measured."""

import json
from dataclasses import asdict, dataclass, fields
from typing import Any, Final, Self

from pydantic import Field

from params.model import Model

GOOD: Final = "good"
NOTE: Final = "note"
FAILED: Final = "failed"


class ProbeArguments(Model):
    """`python -m steps probe`: what this host, its network, its storage and its GPUs can do, a line each."""

    results_uri: str = ""
    """s3:// prefix where each host writes what it measured; empty for an endpoint, which answers with it. [place]"""
    region: str = "us-east-1"
    """Region of the services. [place]"""
    reads: tuple[str, ...] = ()
    """s3:// addresses that jobs read: objects, or prefixes that hold some. [place]"""
    writes: tuple[str, ...] = ()
    """s3:// prefixes that jobs write to. [place]"""
    latents_uri: str = ""
    """s3:// prefix to which the file system of the channel `latents` is linked; empty: no file system. [place]"""
    gpus: tuple[str, ...] = ()
    """GPUs of each instance type of the job, as in ml.g5.12xlarge=4. [running]"""
    volume_gb: int = Field(0, ge=0)
    """Disk that the job asks for; 0: any. [running]"""
    disk_mib: int = Field(1024, ge=1)
    """How much is written to measure the disk. [running]"""
    message_mib: int = Field(64, ge=1)
    """Size of an all-reduce. [running]"""
    services: tuple[str, ...] = ("s3", "sts", "logs", "cloudwatch", "sagemaker")
    """Services, as boto3 names them, whose addresses must answer. [running]"""
    way_out: str = ""
    """Public host that must answer, as HOST or HOST:PORT; empty: none is asked. [running]"""
    host_wait_s: float = Field(300.0, gt=0)
    """How long a host waits for the job's other hosts. [running]"""
    file_wait_s: float = Field(300.0, gt=0)
    """How long a new object may take to appear on the file system. [running]"""
    rank_file: str = ""
    """Where the ranks leave how fast they exchanged data: the program sets it for its own ranks. [running]"""


@dataclass(frozen=True)
class ProbeLine:
    """One check."""

    check: str
    """Its name, such as driver; docs/operations.md lists them."""
    subject: str
    """What was looked at, such as an address in S3; empty where there is one of the kind."""
    status: str
    """good, note (worth knowing, nothing fails of it) or failed."""
    text: str
    """What was measured, or what is wrong."""
    fix: str = ""

    @classmethod
    def of(cls, value: Any) -> Self:
        """Return the line of a JSON object. Raises ValueError where it is none."""
        names = {field.name for field in fields(cls)}
        if not isinstance(value, dict) or set(value) != names:
            raise ValueError(f"not a line of the probe: {str(value)[:200]}")
        return cls(**{name: str(text) for name, text in value.items()})

    def as_json(self) -> str:
        return json.dumps(asdict(self))

    def as_text(self) -> str:
        """Return the line for people, without its fix."""
        return f"{self.check:12} {self.status:7} {self.subject + ': ' if self.subject else ''}{self.text}"
