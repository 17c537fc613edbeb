import numpy as np
import pyarrow as pa
from hypothesis import example, given, settings
from hypothesis import strategies as st

from steps.data.collecting.text_hashes import text_hashes

LONG = "x" * (1 << 16)


@given(st.lists(st.text(max_size=40), max_size=30), st.integers(0, 5))
@example([LONG, "", LONG + "y", "x", "x" * 8, "x" * 9, "\0", "\0\0"], 1)
@settings(max_examples=100, deadline=None)
def test_equal_texts_have_equal_hashes_wherever_they_stand_and_others_others(texts: list[str], skipped: int) -> None:
    array = pa.array([*("before" for _ in range(skipped)), *texts, "behind"], pa.string()).slice(skipped, len(texts))
    hashes = text_hashes(array, 0).tolist()
    alone = [int(text_hashes(pa.array([text]), 0)[0]) for text in texts]
    assert hashes == alone
    assert len(set(hashes)) == len(set(texts))
    assert not set(hashes) & set(text_hashes(array, 1).tolist())


def test_texts_that_differ_in_a_bit_differ_in_half_of_the_hashes_bits() -> None:
    texts = [f"https://example.com/{row:05d}.jpg" for row in range(20_000)]
    hashes = text_hashes(pa.array(texts), 0)
    others = text_hashes(pa.array([chr(ord(text[0]) ^ 1) + text[1:] for text in texts]), 0)
    shares = [float(((hashes ^ others) >> np.uint64(bit) & np.uint64(1)).mean()) for bit in range(64)]
    assert min(shares) > 0.45 and max(shares) < 0.55
    assert abs(float((hashes >> np.uint64(63)).mean()) - 0.5) < 0.02
