import numpy as np
import pytest
from safetensors.numpy import load

from steps.data.latents.block import BlockError, digest, parse_layout, to_bytes
from tests.steps.data.latents_folders import tensors_of


def test_a_block_is_plain_safetensors_with_the_same_bytes_every_time() -> None:
    tensors = tensors_of(range(5), embeddings=True)
    content = to_bytes(tensors)
    assert content == to_bytes(dict(reversed(tensors.items())))
    read = load(content)
    assert read.keys() == tensors.keys()
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(read[name], tensor)
        assert read[name].dtype == tensor.dtype


def test_another_byte_gives_another_digest() -> None:
    content = to_bytes(tensors_of(range(5)))
    assert digest(content) == digest(bytearray(content))
    assert digest(content) != digest(content[:-1] + b"\x01")


@pytest.mark.parametrize(
    "content",
    [b"", b"\x05\x00\x00\x00\x00\x00\x00\x00[1,2]", b"\xff" * 64, b"\x02\x00\x00\x00\x00\x00\x00\x00xx"],
)
def test_other_bytes_are_refused(content: bytes) -> None:
    with pytest.raises(BlockError):
        parse_layout(content)


def test_tensors_of_different_row_counts_are_refused() -> None:
    content = to_bytes({"mean": np.zeros((2, 1), np.float16), "std": np.zeros((3, 1), np.float16)})
    with pytest.raises(BlockError, match="same number of rows"):
        parse_layout(content)
