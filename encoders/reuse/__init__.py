"""What of the last frames' work in the vision tower is used again."""

from .base import REUSERS, Reuser, ReuseStats, Seer, SeerRun

__all__ = ["REUSERS", "ReuseStats", "Reuser", "Seer", "SeerRun"]
