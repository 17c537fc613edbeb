"""What the cloud does to a job is one line with the fix."""

import errno
import os
from typing import Any

import pytest
from botocore.exceptions import ClientError, ConnectTimeoutError

from steps.cloud_faults import cloud_fault


def raised(error: Exception, cause: Exception | None = None) -> Exception:
    try:
        raise error from cause
    except Exception as caught:
        return caught


def denied(**kwargs: Any) -> Exception:
    """Refuse a request as s3fs does, in a function that knows what it asked for."""
    refusal = ClientError({"Error": {"Code": "AccessDenied", "Message": "Access Denied"}}, "GetObject")
    return raised(PermissionError("Access Denied"), refusal)


def ask_for(**kwargs: Any) -> None:
    assert kwargs  # what the failed request was about
    raise denied(**kwargs)


def test_a_denied_request_names_action_address_and_fix() -> None:
    with pytest.raises(PermissionError) as caught:
        ask_for(Bucket="b", Key="k/x")
    line = cloud_fault(caught.value)
    assert "denies the jobs' role GetObject on s3://b/k/x" in line and "Fix: allow it" in line and "\n" not in line


def test_a_cause_further_down_counts() -> None:
    silent = ConnectTimeoutError(endpoint_url="https://s3.us-east-1.amazonaws.com/")
    line = cloud_fault(raised(RuntimeError("a rank failed"), raised(OSError("read"), silent)))
    assert "https://s3.us-east-1.amazonaws.com/" in line and "gateway endpoint" in line


def test_a_full_disk_names_the_file_and_the_setting() -> None:
    line = cloud_fault(raised(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/opt/ml/checkpoints/x")))
    assert "full at /opt/ml/checkpoints/x" in line and "volume_size_gb" in line


@pytest.mark.parametrize("error", [ValueError("x"), FileNotFoundError("x"), PermissionError(errno.EACCES, "no", "/f")])
def test_what_is_the_programs_own_fault_stays_its_own(error: Exception) -> None:
    assert cloud_fault(raised(error)) == ""
