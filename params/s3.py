"""Addresses in S3, and what AWS answers where something is missing: standard library only, for every room."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

SCHEME: Final = "s3://"
_MISSING_WORDS: Final = ("not exist", "not found", "could not find")


def split_uri(uri: str, refusal: Callable[[str], Exception] = ValueError) -> tuple[str, str]:
    """Return (bucket, key) of s3://bucket/key, the key empty at a bucket's end; raise `refusal` for anything else."""
    bucket, _, key = uri.removeprefix(SCHEME).partition("/")
    if not uri.startswith(SCHEME) or not bucket:
        raise refusal(f"{uri!r} is not an s3:// address (s3://bucket/key)")
    return bucket, key


def join_uri(prefix: str, *names: str) -> str:
    """Return the address of a name below an s3:// prefix, which may end with a slash."""
    return "/".join((prefix.rstrip("/"), *names))


def is_under(uri: str, prefixes: Iterable[str]) -> bool:
    """Whether an address is one of some prefixes, s3://bucket or s3://bucket/folder, or lies in one."""
    return any(f"{uri.rstrip('/')}/".startswith(f"{prefix.rstrip('/')}/") for prefix in prefixes)


def error_code(error: Exception) -> str:
    """Return the code in an error of botocore, such as NoSuchKey; empty for any other error."""
    response: dict[str, Any] = getattr(error, "response", {})
    return str(response.get("Error", {}).get("Code", ""))


def unless_missing(call: Callable[..., Any], **request: Any) -> Any:
    """Return what AWS, or the local control plane, answers; None where what the request names is not there."""
    try:
        return call(**request)
    except Exception as error:
        if not is_missing(error):
            raise
        return None


def pages_unless_missing(pages: Iterable[Any]) -> Iterator[Any]:
    """Yield the pages of a paginator; none where what they list is not there."""
    try:
        yield from pages
    except Exception as error:
        if not is_missing(error):
            raise


def is_missing(error: Exception) -> bool:
    """Whether a request was refused because what it names is not there: by a code, or in a validation error's words."""
    code = error_code(error)
    if code.startswith("Validation"):
        return any(words in str(error).lower() for words in _MISSING_WORDS)
    return code == "404" or code.startswith("NoSuch") or code.removesuffix("Exception").endswith("NotFound")
