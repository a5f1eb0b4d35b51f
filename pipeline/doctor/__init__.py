"""`millpond doctor`: what this machine has and lacks, and what to do about it."""

from __future__ import annotations

from .examine import Plan, examine
from .finding import Finding

__all__ = ["Finding", "Plan", "examine"]
