"""Credits of a black box, estimated: what leaving each event out takes from a score.

Shapes: B batch, T events, C candidates.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from influent.models.batch import Batch
from influent.models.network import Network


def leave_one_out(network: Network, batch: Batch, wanted_BC: Tensor) -> tuple[Tensor, Tensor]:
    """Return each event's credit (B, T, C) and the residual (B, C), both float64, at the batch's only question.

    An event is left out by masking it: its item, action and numbers say nothing, its place and time stay. One pass
    for each event and one for none, so this takes T + 1 times as long as a prediction.
    """
    n_items = len(network.bias)
    n_actions = network.encoder.action_in.padding_idx
    assert n_actions is not None
    whole_BC = _scores(network, batch, wanted_BC)
    credits = []
    for t in range(batch.item_BT.shape[1]):
        item_BT, action_BT, numbers_BTF = batch.item_BT.clone(), batch.action_BT.clone(), batch.numbers_BTF.clone()
        item_BT[:, t], action_BT[:, t], numbers_BTF[:, t] = n_items, n_actions, 0
        without = replace(batch, item_BT=item_BT, action_BT=action_BT, numbers_BTF=numbers_BTF)
        credits.append(whole_BC - _scores(network, without, wanted_BC))
    credit_BTC = torch.stack(credits, dim=1) * batch.mask_BQT[:, 0, :, None]
    bias_BC = network.bias.double()[wanted_BC]
    return credit_BTC, whole_BC - bias_BC - credit_BTC.sum(dim=1)


def _scores(network: Network, batch: Batch, wanted_BC: Tensor) -> Tensor:
    return network.scores(batch).double().gather(1, wanted_BC)
