"""Rows of a small table at a great many places, and what of a gradient comes back to each row."""

from __future__ import annotations

import pytest
import torch

from influent.models.gather import gather


@pytest.mark.parametrize("n_columns", [1, 3])
def test_rows_and_their_gradient_are_those_of_indexing(n_columns):
    torch.manual_seed(0)
    table = torch.randn(5, n_columns)
    row, weight = torch.randint(5, (7, 4)), torch.randn(7, 4, n_columns)
    ours, plain = (table.clone().requires_grad_() for _ in range(2))
    found = gather(ours, row)
    assert torch.equal(found, plain[row])
    (found * weight).sum().backward()
    (plain[row] * weight).sum().backward()
    assert torch.allclose(ours.grad, plain.grad, atol=1e-6)


def test_a_fraction_lies_between_a_row_and_the_next():
    table = torch.tensor([[0.0], [10.0], [30.0]], requires_grad=True)
    found = gather(table, torch.tensor([0, 1]), torch.tensor([0.25, 0.5]))
    assert found[:, 0].tolist() == [2.5, 20.0]
    found.sum().backward()
    # A quarter of the way from row 0 to row 1, and half of that from row 1 to row 2.
    assert table.grad[:, 0].tolist() == [0.75, 0.75, 0.5]


def test_the_sum_that_a_gpu_uses_is_that_of_a_processor():
    torch.manual_seed(0)
    value, row = torch.randn(50, 3), torch.randint(4, (50,))
    expected = torch.zeros(4, 3).index_add_(0, row, value)
    assert torch.allclose(torch.ops.aten.embedding_dense_backward(value, row, 4, -1, False), expected, atol=1e-6)
