"""A value function to credits of its events, estimated: one function for each method, and a table of them.

Shapes: B batch, R copies of its rows, T events, X outputs, P orders of the events, K steps of an order, S points of a
path.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from influent.models.methods import CreditMethod, MethodName
from influent.models.module import Attentive
from influent.models.value import ValueFunction


@dataclass(frozen=True)
class Estimate:
    """Credits of the events of a batch."""

    credit_BTX: Tensor
    """float64; what padding has is not read"""
    n_passes: int
    """How many histories the network read for it"""
    error_BTX: Tensor | None = None
    """float64 standard errors of credits that are drawn"""


def leave_one_out(value: ValueFunction, method: CreditMethod) -> Estimate:
    """Credit each event with what masking it takes away: f(all) − f(all but it)."""
    row_R, event_R = value.mask_BT.nonzero(as_tuple=True)
    kept_RT = value.mask_BT[row_R]
    kept_RT[torch.arange(len(row_R)), event_R] = False
    credit_BTX = value.whole_BX.new_zeros(*value.mask_BT.shape, value.whole_BX.shape[1])
    credit_BTX[row_R, event_R] = value.whole_BX[row_R] - value.of_kept(kept_RT, row_R)
    return Estimate(credit_BTX, _n_ends(value) + len(row_R))


def shapley(value: ValueFunction, method: CreditMethod) -> Estimate:
    """Credit each event with its mean gain when it joins the events before it, over orders of the events.

    Orders are drawn in pairs, each with its reverse (Mitchell et al. 2022, antithetic sampling,
    https://jmlr.org/papers/v23/21-0439.html; permutations by Castro et al. 2009,
    https://doi.org/10.1016/j.cor.2008.04.004). A standard error is that of the mean over pairs. A history with no
    more orders than `n_samples` has all of them, and an error of zero.
    """
    estimates = [_shapley_of_row(value, row, method) for row in range(len(value.mask_BT))]
    width = value.mask_BT.shape[1]
    credit_BTX, error_BTX = (
        torch.stack([functional.pad(terms_TX, (0, 0, 0, width - len(terms_TX))) for terms_TX in each])
        for each in ([credit for credit, _, _ in estimates], [error for _, error, _ in estimates])
    )
    return Estimate(credit_BTX, _n_ends(value) + sum(n for _, _, n in estimates), error_BTX)


def _shapley_of_row(value: ValueFunction, row: int, method: CreditMethod) -> tuple[Tensor, Tensor, int]:
    """Return credits and their errors, (T, X) of this row's own events, and the number of passes."""
    assert method.n_samples is not None
    assert method.seed is not None
    n = int(value.mask_BT[row].sum())
    has_all = math.factorial(n) <= method.n_samples
    # Drawn by seed and length alone, so that a history has the same orders whatever histories lie beside it.
    places = _all_orders(n) if has_all else _drawn_orders(n, method.n_samples, np.random.default_rng([method.seed, n]))
    place_PT = torch.from_numpy(places).to(value.mask_BT.device)
    # After step k an order has let in the events with the places 0 … k; after the last it has let in all.
    step_K = torch.arange(max(n - 1, 0), device=place_PT.device)
    kept_PKT = place_PT[:, None, :] <= step_K[:, None]
    n_copies = len(place_PT) * len(step_K)
    joined = [value.baseline_BX[row].expand(len(place_PT), 1, -1), value.whole_BX[row].expand(len(place_PT), 1, -1)]
    if n_copies:
        kept_RT = functional.pad(kept_PKT.flatten(0, 1), (0, value.mask_BT.shape[1] - n))
        of_steps = value.of_kept(kept_RT, torch.full((n_copies,), row, device=kept_RT.device))
        joined.insert(1, of_steps.view(len(place_PT), len(step_K), -1))
    gain_PKX = torch.cat(joined, dim=1).diff(dim=1)
    gain_PTX = gain_PKX.gather(1, place_PT[..., None].expand(-1, -1, gain_PKX.shape[2]))
    credit_TX = gain_PTX.mean(dim=0)
    if has_all:
        return credit_TX, torch.zeros_like(credit_TX), n_copies
    pair_PTX = (gain_PTX[::2] + gain_PTX[1::2]) / 2
    return credit_TX, pair_PTX.std(dim=0) / math.sqrt(len(pair_PTX)), n_copies


def _all_orders(n: int) -> np.ndarray:
    """Return the place of each event in every order, int64 (n!, n)."""
    return np.array(list(itertools.permutations(range(n))), dtype=np.int64).reshape(math.factorial(n), n)


def _drawn_orders(n: int, n_samples: int, rng: np.random.Generator) -> np.ndarray:
    """Return the place of each event in drawn orders, each followed by its reverse, int64 (n_samples, n)."""
    drawn = rng.permuted(np.tile(np.arange(n), (n_samples // 2, 1)), axis=1)
    return np.stack([drawn, n - 1 - drawn], axis=1).reshape(-1, n)


def integrated_gradients(value: ValueFunction, method: CreditMethod) -> Estimate:
    """Credit each event with ∫ ⟨∂f(αz) / ∂z_t, z_t⟩ dα from the masked history (α = 0) to the whole one (α = 1).

    The integral is taken at the points of Gauss and Legendre, so that credits add up to f(z) − f(0) the closer the
    more points there are. Sundararajan et al. 2017, https://arxiv.org/abs/1703.01365.
    """
    assert method.n_steps is not None
    point, weight = np.polynomial.legendre.leggauss(method.n_steps)
    scale_S, weight_S = (torch.from_numpy(each / 2).to(value.mask_BT.device) for each in (point + 1, weight))
    row_R = value.every_row.repeat_interleave(method.n_steps)
    scale_R, weight_R = scale_S.float().repeat(len(value.every_row)), weight_S.repeat(len(value.every_row))
    credit_BTX = value.whole_BX.new_zeros(*value.mask_BT.shape, value.whole_BX.shape[1])
    for some in value.lots(row_R, is_backward=True):
        slope_RTX = value.slopes(scale_R[some], row_R[some])
        credit_BTX.index_add_(0, row_R[some], slope_RTX * weight_R[some, None, None])
    return Estimate(credit_BTX, _n_ends(value) + len(row_R))


def gradient(value: ValueFunction, method: CreditMethod) -> Estimate:
    """Credit each event with ⟨∂f / ∂z_t, z_t⟩: gradient × input, what a straight line through f would say.

    Shrikumar et al. 2016, https://arxiv.org/abs/1605.01713.
    """
    credit_BTX = value.whole_BX.new_zeros(*value.mask_BT.shape, value.whole_BX.shape[1])
    for rows in value.lots(value.every_row, is_backward=True):
        credit_BTX[rows] = value.slopes(torch.ones_like(rows, dtype=torch.float32), rows)
    return Estimate(credit_BTX, _n_ends(value) + len(credit_BTX))


def attention(value: ValueFunction, method: CreditMethod) -> Estimate:
    """Share what the history added, f(all) − f(none), out by how much the model's latest state attends to each event.

    That is the last layer's attention, the mean over its heads. It is the same for every item.
    """
    backbone = value.network.backbone
    assert isinstance(backbone, Attentive)
    added_BX = value.whole_BX - value.baseline_BX
    share_BT = _shares(backbone.attention(value.z_BTD, value.batch).double() * value.mask_BT)
    return Estimate(share_BT[..., None] * added_BX[:, None], _n_ends(value) + len(share_BT))


def similarity(value: ValueFunction, method: CreditMethod) -> Estimate:
    """Share the size of what the history added out by the cosine of each event's item and the output's direction.

    A similar event then speaks for the item and a dissimilar one against it, whatever the history added.
    """
    q_ID = functional.pad(value.network.item_vectors(), (0, 0, 0, 1))
    item_BTD, v_BXD = (functional.normalize(each.double(), dim=2) for each in (q_ID[value.batch.item_BT], value.v_BXD))
    cosine_BTX = (item_BTD @ v_BXD.transpose(1, 2)) * value.mask_BT[..., None]
    added_BX = (value.whole_BX - value.baseline_BX).abs()
    return Estimate(_shares(cosine_BTX) * added_BX[:, None], _n_ends(value))


def _shares(weight_BT: Tensor) -> Tensor:
    """Return weights whose sizes add up to 1 over the events of a row; zeros where there are none."""
    return weight_BT / weight_BT.abs().sum(dim=1, keepdim=True).clamp(min=1e-12)


def _n_ends(value: ValueFunction) -> int:
    """Return the passes for every row with all and with none of its events."""
    return 2 * len(value.mask_BT)


ESTIMATORS: dict[MethodName, Callable[[ValueFunction, CreditMethod], Estimate]] = {
    "leave_one_out": leave_one_out,
    "shapley": shapley,
    "integrated_gradients": integrated_gradients,
    "gradient": gradient,
    "attention": attention,
    "similarity": similarity,
}
"""The methods that estimate, the default one first"""
