"""Picks: from scores or features to the tokens that stay. Each returns int64 indices, increasing.

All are deterministic: ties go to the lower index. Asked for more tokens than there are, they return all.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .budgets import capped_count
from .scorers import cosines, unit

# Shapes: T tokens, D channels, K tokens kept, R rows of things to be covered, J nearest neighbours.


def topk(score_T: Tensor, num_tokens: int) -> Tensor:
    """P1: the largest scores."""
    return score_T.float().sort(descending=True, stable=True).indices[: max(0, num_tokens)].sort().values


def over_threshold(score_T: Tensor, threshold: float, least: int, most: int) -> Tensor:
    """P1: scores above a threshold, largest first: never fewer than `least`, never more than `most`."""
    return topk(score_T, capped_count(int((score_T > threshold).sum()), least, most))


def strided_grid(grid_hw: tuple[int, int], num_tokens: int) -> Tensor:
    """P2: rows and columns at even steps, the coarser of the two as fine as it can be; the remainder spread evenly."""
    height, width = grid_hw
    wanted = min(max(0, num_tokens), height * width)
    if wanted == 0:
        return torch.empty(0, dtype=torch.int64)
    shapes = [(rows, min(width, wanted // rows)) for rows in range(1, min(height, wanted) + 1)]
    rows, columns = min(shapes, key=lambda s: (max(height / s[0], width / s[1]), -s[0] * s[1], -min(s)))
    taken_T = torch.zeros(height * width, dtype=torch.bool)
    taken_T[(_even(height, rows)[:, None] * width + _even(width, columns)).flatten()] = True
    rest_T = (~taken_T).nonzero().squeeze(1)
    taken_T[rest_T[_even(rest_T.shape[0], wanted - rows * columns)]] = True
    return taken_T.nonzero().squeeze(1)


def _even(length: int, count: int) -> Tensor:
    """`count` of 0..length-1, in the middles of as many equal stretches."""
    return (2 * torch.arange(count) + 1) * length // (2 * max(1, count))


def farthest_first(
    x_TD: Tensor,
    num_tokens: int,
    nearest_T: Tensor | None = None,
    enough: float | None = None,
    least: int = 1,
) -> Tensor:
    """P3, max-min: add argmax_i min_{j in S} (1 - cos(x_i, x_j)), one similarity row per pick.

    nearest_T: how far each token is from the nearest of those that are kept already, elsewhere; the farthest is first.
        None: none are, and the first is the one farthest from the mean direction.
    enough: stop when no token is farther than this from the nearest picked one; never below `least` tokens.
    """
    x_TD = unit(x_TD)
    wanted = min(max(0, num_tokens), x_TD.shape[0])
    if nearest_T is not None:
        nearest_T = nearest_T.float().clone()
        start_T = nearest_T
    else:
        nearest_T = torch.full((x_TD.shape[0],), math.inf, device=x_TD.device)
        start_T = -(x_TD @ unit(x_TD.mean(0)))
    open_T = torch.zeros_like(nearest_T)
    picked: list[Tensor] = []
    for _ in range(wanted):
        distance_T = (nearest_T if picked else start_T) + open_T
        best = distance_T.argmax()
        if enough is not None and len(picked) >= least and not bool(distance_T[best] > enough):
            break
        picked.append(best)
        open_T[best] = -math.inf  # its equals are at 0 and still open
        nearest_T = torch.minimum(nearest_T, (1.0 - x_TD @ x_TD[best]).clamp_min(0.0))
    return _sorted(picked, x_TD.device)


def coverage(rows_RT: Tensor, num_tokens: int) -> Tensor:
    """P4, facility location: add argmax_i sum_r max(0, rows[r, i] - best[r]), best = what the picked ones give so far.

    rows_RT: how well each token stands for each of R things, 0 or more.
    """
    rows_RT = rows_RT.float()
    best_R1 = torch.zeros(rows_RT.shape[0], 1, device=rows_RT.device)
    open_T = torch.zeros(rows_RT.shape[1], device=rows_RT.device)
    picked: list[Tensor] = []
    for _ in range(min(max(0, num_tokens), rows_RT.shape[1])):
        best = ((rows_RT - best_R1).clamp_min_(0.0).sum(0) + open_T).argmax()
        picked.append(best)
        open_T[best] = -math.inf
        best_R1 = torch.maximum(best_R1, rows_RT[:, best][:, None])
    return _sorted(picked, rows_RT.device)


def diverse(x_TD: Tensor, relevance_T: Tensor, num_tokens: int) -> Tensor:
    """P5, the greedy mode of a determinantal process with kernel L = diag(r) cos diag(r), by Cholesky updates.

    Where the rest adds nothing (duplicates, more tokens than channels), it goes on by relevance.
    """
    relevance_T = relevance_T.float().clamp_min(0.0)
    # The same choice at any scale, and no overflow in the squares.
    relevance_T = relevance_T / relevance_T.max().clamp_min(1e-30) if relevance_T.numel() else relevance_T
    kernel_TT = relevance_T[:, None] * cosines(x_TD, x_TD) * relevance_T
    left_T = kernel_TT.diagonal().clone()
    nothing = 1e-6 * float(left_T.max()) if left_T.numel() else 0.0
    wanted = min(max(0, num_tokens), x_TD.shape[0])
    basis_KT = torch.zeros(wanted, x_TD.shape[0], device=x_TD.device)
    open_T = torch.zeros_like(left_T)
    picked: list[Tensor] = []
    for i in range(wanted):
        adds_T = torch.where(left_T > nothing, left_T, nothing * (relevance_T - 1))
        best = (adds_T + open_T).argmax()
        pivot = left_T[best]
        if bool(pivot > nothing):
            row_T = (kernel_TT[best] - basis_KT[:i, best] @ basis_KT[:i]) / pivot.sqrt()
            basis_KT[i] = row_T
            left_T = left_T - row_T.square()
        picked.append(best)
        open_T[best] = -math.inf
    return _sorted(picked, x_TD.device)


def density_peaks(x_TD: Tensor, num_tokens: int, num_neighbours: int = 7) -> Tensor:
    """P6, DPC-kNN: the largest rho * delta, d_ij = ||x_i - x_j|| / sqrt(D).

    rho_i = exp(-mean of the num_neighbours smallest d_ij^2); delta_i = d to the nearest denser token, and for the
    densest the largest d there is. Of equally dense tokens the lower index counts as the denser.
    """
    x_TD = x_TD.float()
    num_all = x_TD.shape[0]
    if num_tokens >= num_all:
        return torch.arange(num_all, device=x_TD.device)
    # The exact form: the faster one, over a matrix product, sets equal tokens slightly apart.
    d_TT = torch.cdist(x_TD, x_TD, compute_mode="donot_use_mm_for_euclid_dist") / x_TD.shape[1] ** 0.5
    d_TT = d_TT.clamp_max(1e15)  # its square stays finite
    near_TJ = d_TT.topk(min(num_neighbours + 1, num_all), largest=False).values[:, 1:]
    # Of exp only the order of the product matters; the log keeps it where far tokens would round to 0.
    log_rho_T = -near_TJ.square().sum(-1) / max(1, near_TJ.shape[1])
    order_T = log_rho_T.sort(descending=True, stable=True).indices
    rank_T = order_T.argsort()
    far_TT = torch.where(rank_T[None, :] < rank_T[:, None], d_TT, math.inf)
    delta_T = far_TT.amin(-1)
    delta_T[order_T[0]] = d_TT.max()
    return topk(log_rho_T + delta_T.log(), num_tokens)


def _sorted(picked: list[Tensor], device: torch.device) -> Tensor:
    return torch.stack(picked).sort().values if picked else torch.empty(0, dtype=torch.int64, device=device)
