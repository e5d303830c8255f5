"""A world and its truth to rescaled times, by which it can be seen whether the truth is true."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from influent.data.worlds import DAY_US, Floats, Ints, World, index_in
from influent.schema import ACTION, SOURCE_USER_ID, TARGET_USER_ID, TIME_US, USER_ID


def rescaled_times(world: World) -> Floats:
    """Measure the gaps between events by what the truth expected in them; under a right truth they are Exp(1).

    By the time-rescaling theorem (Ogata 1981; Brown et al. 2002, https://doi.org/10.1162/08997660252741149), user
    u's events, moved from t to the compensator Λ_u(t) = ∫₀ᵗ λ_u, are a Poisson process of rate 1 that is watched until
    Λ_u(horizon). Leaving out each user's last, unfinished gap would favour short gaps. So the users' rescaled times
    are put end to end: a rate-1 process of length Σ_u Λ_u(horizon), of which one gap alone, the very last, is
    unfinished. With ties this is exact but for the gaps that span two users, whose joints depend on one another.

    Only the tables of `world` are read: replace one by a wrong truth, and the gaps show it.

    Returns:
        One gap per event, users in the order of `world.users`.
    """
    user, time_us, kernel, strength, is_event = _stimuli(world)
    begins = np.diff(user, prepend=-1) != 0
    wait = np.where(begins, time_us - world.config.start_us, np.diff(time_us, prepend=0))
    expected = wait / DAY_US * world.users["base_rate_per_day"].to_numpy()[user]
    codes = index_in(world.kernels[ACTION], world.actions[ACTION])
    weights, scales = world.kernels["weight"].to_numpy(), world.kernels["scale_us"].to_numpy()
    for code, weight, scale_us in zip(codes, weights, scales, strict=True):
        decay = np.where(begins, 0.0, np.exp(-wait / scale_us))
        level = _solve_recurrence(decay, np.where(kernel == code, weight * strength, 0.0))
        spent = np.where(begins, 0.0, -np.expm1(-wait / scale_us))
        expected[1:] += level[:-1] * spent[1:]
    gaps: Floats = np.diff(np.cumsum(expected)[is_event], prepend=0.0)
    return gaps


def _stimuli(world: World) -> tuple[Ints, Ints, Ints, Floats, npt.NDArray[np.bool_]]:
    """Return what each user's rate reacts to, by user and time: own events, tied users' events, and the end (inert)."""
    own, users = world.events.select([USER_ID, TIME_US, ACTION]), world.users[USER_ID]
    heard = own.join(world.edges, keys=USER_ID, right_keys=SOURCE_USER_ID, join_type="inner", use_threads=False)
    n_own, n_heard, n_users, n_actions = own.num_rows, heard.num_rows, len(users), world.actions.num_rows
    end_us = world.config.start_us + world.config.horizon_us
    action = index_in(own[ACTION], world.actions[ACTION])
    user = np.concatenate([index_in(own[USER_ID], users), index_in(heard[TARGET_USER_ID], users), np.arange(n_users)])
    time_us = np.concatenate([own[TIME_US].to_numpy(), heard[TIME_US].to_numpy(), np.full(n_users, end_us)])
    kernel = np.concatenate([action, np.full(n_heard + n_users, n_actions)])
    own_strength = world.actions["strength"].to_numpy()[action]
    strength = np.concatenate([own_strength, heard["strength"].to_numpy(), np.zeros(n_users)])
    order = np.lexsort((time_us, user))
    return user[order], time_us[order], kernel[order], strength[order], order < n_own


def _solve_recurrence(decay: Floats, jump: Floats) -> Floats:
    """Return x with x[n] = decay[n] · x[n − 1] + jump[n], by doubling: log₂(longest history) passes over all users."""
    level, reach, step = jump.copy(), decay.copy(), 1
    while step < level.size and reach.any():
        level[step:] += reach[step:] * level[:-step]
        reach[step:] *= reach[:-step]
        step *= 2
    return level
