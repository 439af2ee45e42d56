"""Products of matrices in the type in which a model is served."""

from __future__ import annotations

import pytest
import torch

from quantwise.build.products import products_in


def test_bfloat16_products_are_near_and_the_setting_is_given_back() -> None:
    before = torch.get_float32_matmul_precision()
    a = torch.randn(256, 256, generator=torch.Generator().manual_seed(0))
    exact = a.double() @ a.double()
    with products_in(torch.bfloat16):
        assert torch.get_float32_matmul_precision() == "medium"
        found = a @ a
    assert torch.get_float32_matmul_precision() == before
    # Factors keep 8 bits, sums all of float32's: far nearer than a product that is itself rounded to bfloat16.
    assert float((found - exact).norm() / exact.norm()) < 0.003
    assert found.dtype == torch.float32


def test_other_types_multiply_as_before() -> None:
    a = torch.randn(256, 256, generator=torch.Generator().manual_seed(0))
    expected = a @ a
    with products_in(torch.float16):
        assert torch.equal(a @ a, expected)


def test_the_setting_is_given_back_after_an_error() -> None:
    before = torch.get_float32_matmul_precision()
    with pytest.raises(ZeroDivisionError), products_in(torch.bfloat16):
        raise ZeroDivisionError
    assert torch.get_float32_matmul_precision() == before
