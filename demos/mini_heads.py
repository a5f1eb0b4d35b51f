"""Heads that only training has: they ask of the tower what covers each patch, and of the language half what is true of
each frame. An answer in words comes once in hundreds of tokens; these make every token and every frame a lesson."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from mini_lessons import FIRST_DIGIT, IGNORE, MOST_RANK, MOTIONS, NAMES, NO_SIGN, PLACES, TIME_SIGNS, place_labels
from torch import Tensor, nn

from millpond.stream.truth import WORDINGS
from millpond.stream.world import COLORS, SHAPES

# Shapes: N pictures, P patches, C pooled cells, D channels, B clips, S tokens of a sequence, T frames of all clips, K
# names of objects, W words.

FACTS = {"now": 4.0, "came": 12.0, "ever": 4.0, "left": 24.0}
"""What a frame is asked, and how much more a yes weighs: most names are not there, and things come and go seldom."""
BEEN_WEIGHT = 4.0
"""The same, of a no about what has been there: the frames before still show it."""
SINCE_WEIGHT = 4.0
"""The same, of what came and left since a time."""
NUM_CLASSES = (1 + len(COLORS), 1 + len(SHAPES), 11)
"""Of a patch: nothing or a colour, nothing or a shape, nothing or a digit."""


def split_label(label: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A label of `mini_lessons` to a class of colour, of shape and of digit, 0 meaning nothing."""
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
    """What is true of a frame, its time and what its ticker says, from the token that ends it; whether what a cell
    shows is new, from that cell's; and of each object that a question or an answer names, from the token that ends its
    name: when it came, that frame's time and ticker, how many came before it, what came and stands next, where it is
    and how it moves; of each time that a question gives, what came and left after it; and of each name in an answer
    what the answer names next. The token before a frame's cells, the last of its time, is asked what was there before:
    the frame's end finds there what it compares with. A time in a question is asked what was there then.

    Without those of questions, a question's tokens find the frame that they are about only by luck: one answer in
    hundreds of tokens is too faint a hint of where to look.

    cell_layer, frame_layer, rank_layer, name_layer, since_layer, news_layer: after how many layers of the language half
    these are asked. What a later one needs, an earlier one tells: a frame counts what it knows to have come, a name
    finds its frame's count; a time finds its frame, and then what was otherwise there; an answer chooses among what is
    known of names, or of a time.
    """

    def __init__(
        self,
        text_dim: int,
        cell_layer: int = 3,
        frame_layer: int = 4,
        rank_layer: int = 5,
        name_layer: int = 6,
        since_layer: int = 7,
        news_layer: int = 8,
    ) -> None:
        super().__init__()
        self.cell_layer, self.frame_layer = cell_layer, frame_layer
        self.rank_layer, self.name_layer = rank_layer, name_layer
        self.since_layer, self.news_layer = since_layer, news_layer
        self.facts = nn.Linear(text_dim, (len(FACTS) - 1) * len(NAMES))
        self.left = nn.Linear(text_dim, len(NAMES))
        self.signs = nn.Linear(text_dim, (TIME_SIGNS + 2) * (NO_SIGN + 1))
        self.rank = nn.Linear(text_dim, MOST_RANK)
        self.count = nn.Linear(text_dim, MOST_RANK)
        self.cell = nn.Linear(text_dim, 3)
        self.name_ever = nn.Linear(text_dim, 2)
        self.name_signs = nn.Linear(text_dim, (TIME_SIGNS + 2) * (NO_SIGN + 1))
        self.name_rank = nn.Linear(text_dim, MOST_RANK)
        self.name_then = nn.Linear(text_dim, len(NAMES) + 1)
        self.name_next = nn.Linear(text_dim, len(NAMES) + 1)
        self.name_place = nn.Linear(text_dim, len(PLACES))
        self.name_motion = nn.Linear(text_dim, len(MOTIONS))
        self.since = nn.Linear(text_dim, 2 * len(NAMES))

    def forward(self, layers_BSD: tuple[Tensor, ...], batch: dict[str, Tensor]) -> Tensor:
        return (
            self._frames(layers_BSD, batch)
            + self._elsewhere(layers_BSD[self.rank_layer], batch)
            + self._names(layers_BSD[self.name_layer], batch)
            + self._since(layers_BSD[self.since_layer], batch)
            + self._follows(layers_BSD, batch)
        )

    def _frames(self, layers_BSD: tuple[Tensor, ...], batch: dict[str, Tensor]) -> Tensor:
        frames, cells = batch["frames"], batch["cells"]
        clips = torch.arange(len(frames))[:, None].expand_as(frames)
        ends = cells == batch["coarse"].shape[-1]
        early_TD, later_TD = layers_BSD[self.frame_layer][ends], layers_BSD[self.rank_layer][ends]
        left_TK = self.left(layers_BSD[self.name_layer][ends])
        logits_TX = torch.cat([self.facts(early_TD), left_TK], dim=-1).float()
        truth_TFK = torch.stack([batch[key][clips[ends], frames[ends]] for key in FACTS], dim=1)
        known = truth_TFK != IGNORE
        no_TFK = torch.where(truth_TFK[:, [list(FACTS).index("ever")]] > 0, BEEN_WEIGHT, 1.0)
        weight = torch.where(truth_TFK > 0, torch.tensor(tuple(FACTS.values()))[:, None], no_TFK)[known]
        logits = logits_TX.view_as(truth_TFK)[known]
        loss = F.binary_cross_entropy_with_logits(logits, truth_TFK[known].float(), weight)
        signs = _sign_loss(self.signs(early_TD), batch["signs"][clips[ends], frames[ends]])
        rank = _loss(self.rank(later_TD), batch["rank"][clips[ends], frames[ends]])
        count = _loss(self.count(later_TD), batch["count"][clips[ends], frames[ends]])
        shown = (cells >= 0) & ~ends
        label = batch["coarse"][clips[shown], frames[shown], cells[shown]]
        is_name = (label > 0) & (label < FIRST_DIGIT)
        came = batch["came"][clips[shown], frames[shown]].gather(1, (label - 1).clamp(0, len(NAMES) - 1)[:, None])[:, 0]
        state = torch.where(is_name, 1 + came, 0)
        logits = self.cell(layers_BSD[self.cell_layer][shown]).float()
        cell = F.cross_entropy(logits, state, torch.tensor([0.2, 1.0, 3.0]))
        return 4 * loss + signs + 0.5 * (rank + count) + cell

    def _elsewhere(self, states_BSD: Tensor, batch: dict[str, Tensor]) -> Tensor:
        """What was there before, of the last token of a frame's time; what was there then, of a time in a question. By
        the head that frames' ends are asked with: what is found there is what was told there."""
        frames, cells = batch["frames"], batch["cells"]
        is_last = (frames > 0) & (cells < 0)
        is_last[:, :-1] &= cells[:, 1:] >= 0
        is_time = batch["since_came"] != IGNORE
        return 2 * self._fact(states_BSD, batch, is_last, frames - 1, ("now",)) + 2 * self._fact(
            states_BSD, batch, is_time, batch["name_moment"], ("now", "ever")
        )

    def _fact(
        self, states_BSD: Tensor, batch: dict[str, Tensor], asked_BS: Tensor, of_BS: Tensor, keys: tuple[str, ...]
    ) -> Tensor:
        """Of these tokens, what is true of those frames."""
        clips, of_T = torch.arange(len(of_BS))[:, None].expand_as(of_BS)[asked_BS], of_BS[asked_BS]
        has_been_TK = batch["ever"][clips, of_T] > 0
        told_TX = self.facts(states_BSD[asked_BS]).float()
        logits, truth, weight = [], [], []
        for key in keys:
            truth_TK, first = batch[key][clips, of_T], list(FACTS).index(key) * len(NAMES)
            known = truth_TK != IGNORE
            logits.append(told_TX[:, first : first + len(NAMES)][known])
            truth.append(truth_TK[known].float())
            weight.append(torch.where((truth_TK > 0) | has_been_TK, BEEN_WEIGHT, 1.0)[known])
        if not sum(map(len, truth)):
            return torch.zeros(())
        return F.binary_cross_entropy_with_logits(torch.cat(logits), torch.cat(truth), torch.cat(weight))

    def _names(self, states_BSD: Tensor, batch: dict[str, Tensor]) -> Tensor:
        names = (batch["name_ever"] != IGNORE) | (batch["name_moment"] != IGNORE)
        states_TD = states_BSD[names]
        moment_T = batch["name_moment"][names]
        clips = torch.arange(len(names))[:, None].expand_as(names)[names]
        signs_TN = torch.where(
            (moment_T != IGNORE)[:, None], batch["signs"][clips, moment_T.clamp(min=0)], torch.tensor(IGNORE)
        )
        return (
            _loss(self.name_ever(states_TD), batch["name_ever"][names])
            + _sign_loss(self.name_signs(states_TD), signs_TN)
            + 0.5 * _loss(self.name_rank(states_TD), batch["name_rank"][names])
            + 0.5 * _loss(self.name_then(states_TD), batch["name_then"][names])
            + 0.5 * _loss(self.name_next(states_TD), batch["name_next"][names])
            + 0.3 * _loss(self.name_place(states_TD), batch["name_place"][names])
            + 0.5 * _loss(self.name_motion(states_TD), batch["name_motion"][names])
        )

    def _since(self, states_BSD: Tensor, batch: dict[str, Tensor]) -> Tensor:
        known = batch["since_came"] != IGNORE
        if not known.any():
            return torch.zeros(())
        bits_T2 = torch.stack([batch["since_came"][known], batch["since_left"][known]], dim=-1)
        truth_T2K = (bits_T2[..., None] >> torch.arange(len(NAMES))) & 1
        logits_T2K = self.since(states_BSD[known]).float().view_as(truth_T2K)
        weight = torch.where(truth_T2K > 0, SINCE_WEIGHT, 1.0)
        return 5 * F.binary_cross_entropy_with_logits(logits_T2K, truth_T2K.float(), weight)

    def _follows(self, layers_BSD: tuple[Tensor, ...], batch: dict[str, Tensor]) -> Tensor:
        """Among names an answer can choose as soon as they are known; among news one layer later."""
        is_news = batch["kinds"] == list(WORDINGS).index("new")
        loss = torch.zeros(())
        for layer, is_asked in ((self.since_layer, ~is_news), (self.news_layer, is_news)):
            label = torch.where(is_asked, batch["follows"], IGNORE)
            loss = loss + _loss(self.name_next(layers_BSD[layer][label != IGNORE]), label[label != IGNORE])
        return loss


def _sign_loss(logits_TX: Tensor, signs_TN: Tensor) -> Tensor:
    logits = logits_TX.unflatten(-1, (TIME_SIGNS + 2, NO_SIGN + 1)).flatten(0, 1)
    return 3 * _loss(logits, signs_TN.flatten())  # most places of most times are blank


def _loss(logits_TX: Tensor, label_T: Tensor) -> Tensor:
    """Mean over what has a label; zero where nothing has."""
    known = label_T != IGNORE
    if not known.any():
        return torch.zeros(())
    return F.cross_entropy(logits_TX[known].float(), label_T[known].clamp(max=logits_TX.shape[-1] - 1))


def _weight(num: int) -> Tensor:
    """Most of every picture is nothing."""
    weight = torch.ones(num)
    weight[0] = 0.3
    return weight
