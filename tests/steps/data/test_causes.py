import pytest

from steps.data.causes import Cause, from_message, from_status


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("image too small", "too_small"),
        ("aspect ratio too large", "aspect_ratio"),
        ("image area too large", "too_many_pixels"),
        ("OpenCV(4.1) ... pixels <= CV_IO_MAX_IMAGE_PIXELS in function", "too_many_pixels"),
        ("Image decoding error", "corrupt"),
        ("http_404", "http_404"),
        *((cause.value, cause.value) for cause in Cause),
    ],
)
def test_messages_become_causes(message: str, expected: str) -> None:
    assert from_message(message) == expected


def test_only_statuses_of_the_standard_are_counted_one_by_one() -> None:
    assert (from_status(404), from_status(999)) == ("http_404", "bad_response")
