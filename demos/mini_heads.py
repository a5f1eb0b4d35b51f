"""Heads that only training has: they ask of the tower what covers each patch, and of the language half what is true of
each frame. An answer in words comes once in hundreds of tokens; these make every token and every frame a lesson."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from mini_data import FIRST_DIGIT, IGNORE, NAMES, NO_DIGIT, PLACES, TIME_DIGITS, place_labels
from torch import Tensor, nn

from millpond.stream.world import COLORS, SHAPES

# Shapes: N pictures, P patches, C pooled cells, D channels, B clips, S tokens of a sequence, T frames of all clips, K
# names of objects, W words.

FACTS = ("now", "came", "left", "ever")
NUM_CLASSES = (1 + len(COLORS), 1 + len(SHAPES), 11)
"""Of a patch: nothing or a colour, nothing or a shape, nothing or a digit."""


def split_label(label: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A label of `mini_data` to a class of colour, of shape and of digit, 0 meaning nothing."""
    flat = label.flatten()
    is_name, is_digit = (flat > 0) & (flat < FIRST_DIGIT), flat >= FIRST_DIGIT
    color = torch.where(is_name, (flat - 1) // len(SHAPES) + 1, 0)
    shape = torch.where(is_name, (flat - 1) % len(SHAPES) + 1, 0)
    return color, shape, torch.where(is_digit, flat - FIRST_DIGIT + 1, 0)


class Looking(nn.Module):
    """What covers a patch, and which words a pooled token should be near to.

    Aligning each pooled visual token with the embeddings of the words for its colour, its shape, its digit and its
    place (softmaxes against the tied embedding matrix, with a learned row for "nothing here") is what makes the
    language half learn at once.
    """

    def __init__(self, tower_dim: int, text_dim: int) -> None:
        super().__init__()
        self.patch = nn.Linear(tower_dim, sum(NUM_CLASSES))
        self.nothing = nn.Parameter(torch.randn(3, text_dim) * 0.02)
        self.log_scale = nn.Parameter(torch.tensor(2.0))

    def forward(
        self, patches_NPD: Tensor, cells_NCD: Tensor, words_WD: Tensor, fine_NP: Tensor, coarse_NC: Tensor
    ) -> Tensor:
        """words_WD: embedding rows of the colours, the shapes, the digits, then of the places."""
        logits = self.patch(patches_NPD).flatten(0, 1).float().split(NUM_CLASSES, dim=-1)
        loss = torch.zeros(())
        for part, label in zip(logits, split_label(fine_NP), strict=True):
            loss = loss + F.cross_entropy(part, label, _weight(part.shape[-1]))
        cells = F.normalize(cells_NCD.float(), dim=-1).flatten(0, 1)
        *tables, places = words_WD.float().split([len(COLORS), len(SHAPES), 10, len(PLACES)])
        for number, (table, label) in enumerate(zip(tables, split_label(coarse_NC), strict=True)):
            table = F.normalize(torch.cat([self.nothing[number : number + 1], table]), dim=-1)
            loss = loss + F.cross_entropy(cells @ table.T * self.log_scale.exp(), label, _weight(len(table)))
        is_name = (coarse_NC > 0) & (coarse_NC < FIRST_DIGIT)
        label = torch.where(is_name, torch.tensor(place_labels()), IGNORE).flatten()
        if not (label != IGNORE).any():
            return loss
        logits = cells @ F.normalize(places, dim=-1).T * self.log_scale.exp()
        return loss + F.cross_entropy(logits, label, ignore_index=IGNORE)


class Telling(nn.Module):
    """What is true of a frame, its time and what its ticker says, from the token that ends it; and whether what a cell
    shows is new, from that cell's.

    cell_layer, frame_layer: after how many layers of the language half these are asked.
    """

    def __init__(self, text_dim: int, cell_layer: int = 3, frame_layer: int = 4) -> None:
        super().__init__()
        self.cell_layer, self.frame_layer = cell_layer, frame_layer
        self.facts = nn.Linear(text_dim, len(FACTS) * len(NAMES))
        self.digits = nn.Linear(text_dim, (TIME_DIGITS + 2) * (NO_DIGIT + 1))
        self.cell = nn.Linear(text_dim, 3)

    def forward(self, layers_BSD: tuple[Tensor, ...], batch: dict[str, Tensor]) -> Tensor:
        frames, cells = batch["frames"], batch["cells"]
        clips = torch.arange(len(frames))[:, None].expand_as(frames)
        ends = cells == batch["coarse"].shape[-1]
        states_TD = layers_BSD[self.frame_layer][ends]
        logits_TFK = self.facts(states_TD).float().unflatten(-1, (len(FACTS), len(NAMES)))
        truth_TFK = torch.stack([batch[key][clips[ends], frames[ends]] for key in FACTS], dim=1)
        known = truth_TFK != IGNORE
        weight = torch.where(truth_TFK > 0, 4.0, 1.0)[known]
        loss = F.binary_cross_entropy_with_logits(logits_TFK[known], truth_TFK[known].float(), weight)
        logits = self.digits(states_TD).float().unflatten(-1, (TIME_DIGITS + 2, NO_DIGIT + 1))
        digits = F.cross_entropy(logits.flatten(0, 1), batch["digits"][clips[ends], frames[ends]].flatten())
        shown = (cells >= 0) & ~ends
        label = batch["coarse"][clips[shown], frames[shown], cells[shown]]
        is_name = (label > 0) & (label < FIRST_DIGIT)
        came = batch["came"][clips[shown], frames[shown]].gather(1, (label - 1).clamp(0, len(NAMES) - 1)[:, None])[:, 0]
        state = torch.where(is_name, 1 + came, 0)
        logits = self.cell(layers_BSD[self.cell_layer][shown]).float()
        return 4 * loss + digits + F.cross_entropy(logits, state, torch.tensor([0.2, 1.0, 3.0]))


def _weight(num: int) -> Tensor:
    """Most of every picture is nothing."""
    weight = torch.ones(num)
    weight[0] = 0.3
    return weight
