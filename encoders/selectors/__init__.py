"""Which frames of a recording a question or a summary needs."""

from .base import SELECTORS, Candidate, Card, Selection, Selector
from .card import compose_card
from .similarity import FamilySimilarity, Similarity

__all__ = [
    "SELECTORS",
    "Candidate",
    "Card",
    "FamilySimilarity",
    "Selection",
    "Selector",
    "Similarity",
    "compose_card",
]
