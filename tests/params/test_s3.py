"""Addresses in S3 are split and joined in one way, and an answer that something is missing is told from others."""

import pytest
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st

from params.s3 import error_code, is_missing, join_uri, split_uri

KEYS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


@given(st.from_regex(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", fullmatch=True), KEYS)
def test_a_split_address_has_its_bucket_and_its_key_to_the_letter(bucket: str, key: str) -> None:
    assert split_uri(f"s3://{bucket}/{key}") == (bucket, key)


def test_an_address_of_a_bucket_has_an_empty_key() -> None:
    assert split_uri("s3://bucket") == ("bucket", "")


@pytest.mark.parametrize("uri", ["bucket/key", "https://bucket/key", "s3:///key", "s3://", ""])
def test_anything_else_is_refused_by_name(uri: str) -> None:
    with pytest.raises(KeyError, match="is not an s3:// address"):
        split_uri(uri, KeyError)


@pytest.mark.parametrize("prefix", ["s3://bucket/a", "s3://bucket/a/"])
def test_names_are_joined_with_one_slash(prefix: str) -> None:
    assert join_uri(prefix, "b", "c") == "s3://bucket/a/b/c"
    assert join_uri(prefix, "") == "s3://bucket/a/"


def refusal(code: str, message: str = "") -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": message}}, "Describe")


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("404", "Not Found"),
        ("NoSuchKey", ""),
        ("NoSuchBucket", ""),
        ("ResourceNotFound", ""),
        ("ResourceNotFoundException", ""),
        ("RepositoryNotFoundException", ""),
        ("FileSystemNotFound", ""),
        ("ValidationException", "Could not find endpoint x."),
        ("ValidationException", "ModelPackageGroup arn does not exist."),
        ("ValidationError", "Stack with id x does not exist"),
    ],
)
def test_what_is_missing_is_missing(code: str, message: str) -> None:
    assert is_missing(refusal(code, message))


@pytest.mark.parametrize(
    ("code", "message"),
    [("AccessDenied", "the role does not exist"), ("ValidationException", "1 validation error"), ("403", ""), ("", "")],
)
def test_another_refusal_is_not_taken_for_it(code: str, message: str) -> None:
    assert not is_missing(refusal(code, message))


def test_an_error_of_another_kind_has_no_code() -> None:
    assert error_code(OSError("not found")) == "" and not is_missing(OSError("not found"))
