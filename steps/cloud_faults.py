"""What the cloud around a job does to it, in one line with the fix: denied addresses, silent services, a full disk.

Reads an error, the errors that caused it, and what the failed request was about; writes nothing.
"""

import errno
import traceback
from collections.abc import Iterator

_SILENT = ("ConnectTimeoutError", "EndpointConnectionError", "ConnectTimeout", "ProxyConnectionError")


def cloud_fault(error: BaseException) -> str:
    """Return the fault and its fix; nothing where the cloud is not to blame."""
    for cause in _causes(error):
        code = str(getattr(cause, "response", {}).get("Error", {}).get("Code", ""))
        if code in ("AccessDenied", "AllAccessDisabled", "403"):
            operation = getattr(cause, "operation_name", "a request")
            return (
                f"S3 denies the jobs' role {operation} on {_address(error)}: {code}. "
                "Fix: allow it in the role's policy and the bucket's, or move the data to the run's own bucket"
            )
        if type(cause).__name__ in _SILENT:
            said = " ".join(str(cause).split())
            return (
                f"a service does not answer this host: {said}. Fix: look at the security groups; "
                "inside a network without a NAT gateway the service needs an interface endpoint, S3 a gateway endpoint"
            )
        if isinstance(cause, OSError) and cause.errno == errno.ENOSPC:
            place = f" at {cause.filename}" if cause.filename else ""
            return f"the disk of this host is full{place}. Fix: raise volume_size_gb in the section of the step's job"
    return ""


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _address(error: BaseException) -> str:
    """Return what the failed request was about: only the call that made it knows, several frames down."""
    for cause in _causes(error):
        for frame, _ in traceback.walk_tb(cause.__traceback__):
            request = frame.f_locals.get("kwargs")
            if isinstance(request, dict) and "Bucket" in request:
                return f"s3://{request['Bucket']}/{request.get('Key') or request.get('Prefix') or ''}"
    return "an address"
