"""Codes in words, against one long number."""

import pytest
import torch

from quantwise.formats.bit_packing import pack_words, unpack_words


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_words_are_one_stream_of_bits_and_come_back(bits: int) -> None:
    codes = torch.randint(0, 1 << bits, (3, 96), generator=torch.Generator().manual_seed(bits))
    words = pack_words(codes, bits)
    assert words.dtype == torch.int32
    assert words.shape == (3, 3 * bits)
    for row, packed in zip(codes.tolist(), words.tolist(), strict=True):
        stream = sum(code << (bits * i) for i, code in enumerate(row))
        assert stream == sum((word & 0xFFFFFFFF) << (32 * k) for k, word in enumerate(packed))
    assert torch.equal(unpack_words(words, bits), codes.int())


def test_words_that_stay_unfilled_are_refused() -> None:
    with pytest.raises(ValueError, match="40 codes of 3 bits do not fill"):
        pack_words(torch.zeros(40), 3)
