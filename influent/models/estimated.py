"""Credits of a black box, estimated: what leaving each event out takes from an output.

Shapes: B batch, T events, C candidates.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from influent.models.batch import Batch


def leave_one_out(batch: Batch, outputs: Callable[[Batch], Tensor]) -> tuple[Tensor, Tensor]:
    """Return the outputs (B, C) at the batch's only question, and each event's credit (B, T, C), both float64.

    An event is left out by masking it: its item, action, numbers and categories say nothing, its place and time
    stay. One pass for each event and one for none, so this takes T + 1 times as long as a prediction.
    """
    whole_BC = outputs(batch).double()
    credits = []
    for t in range(batch.item_BT.shape[1]):
        item_BT, action_BT, numbers_BTF = batch.item_BT.clone(), batch.action_BT.clone(), batch.numbers_BTF.clone()
        item_BT[:, t], action_BT[:, t], numbers_BTF[:, t] = batch.no_item, batch.no_action, 0
        category_BTK = batch.category_BTK.clone()
        category_BTK[:, t] = category_BTK.new_tensor(batch.no_category_K)
        without = replace(
            batch, item_BT=item_BT, action_BT=action_BT, numbers_BTF=numbers_BTF, category_BTK=category_BTK
        )
        credits.append(whole_BC - outputs(without).double())
    return whole_BC, torch.stack(credits, dim=1) * batch.mask_BQT[:, 0, :, None]
