"""64-bit hashes of many texts at once. Reads and writes nothing, and nobody stores them."""

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Hashes = npt.NDArray[np.uint64]

WORD: Final = 8
_ODD: Final = np.uint64(0xC6A4A7935BD1E995)
_SHIFT: Final = np.uint64(47)


def text_hashes(texts: Any, seed: int) -> Hashes:
    """Return the hash of each text of a pyarrow array of strings without nulls: MurmurHash64A, but for the last word.

    Source: Austin Appleby, https://github.com/aappleby/smhasher (MurmurHash2.cpp). All texts take a word of 8 bytes in
    turn; those that end drop out, the longest stay.
    """
    _, places, content = texts.cast(pa.binary()).buffers()
    if not len(texts):
        return np.empty(0, np.uint64)
    offsets = np.frombuffer(places, np.int32)[texts.offset : texts.offset + len(texts) + 1]
    padded = (b"" if content is None else memoryview(content)[: offsets[-1]].tobytes()) + bytes(WORD)
    words: Hashes = np.ndarray(len(padded) - WORD + 1, "<u8", padded, strides=(1,))
    lengths = np.diff(offsets)
    # Small numbers are sorted ten times as fast.
    kind = np.uint16 if lengths.max() < 1 << 16 else np.int64
    order = np.argsort(lengths.astype(kind), kind="stable")[::-1]
    starts, minus_lengths = offsets[:-1][order], -lengths[order]
    found = lengths[order].astype(np.uint64) * _ODD ^ np.uint64(seed)
    count, at = len(order), 0
    while count := int(np.searchsorted(minus_lengths[:count], -at)):
        word = words[starts[:count] + at]
        # The last word of a text, without what lies behind it.
        whole = int(np.searchsorted(minus_lengths[:count], 1 - WORD - at))
        word[whole:] <<= np.uint64(8) * (WORD + at + minus_lengths[whole:count]).astype(np.uint64)
        word *= _ODD
        found[:count] ^= (word ^ word >> _SHIFT) * _ODD
        found[:count] *= _ODD
        at += WORD
    found = (found ^ found >> _SHIFT) * _ODD
    hashes = np.empty_like(found)
    hashes[order] = found ^ found >> _SHIFT
    return hashes
