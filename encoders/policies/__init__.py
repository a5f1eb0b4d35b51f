"""Vision-language-action policies driven by our code: what of their prefix's work can be left out, and is.

pi0 is the policy; observation is what it is given; SAVINGS lists what can be saved, and "none" is exact.
"""

from .base import SAVINGS, Saving, SavingRun
from .observation import Chunk, Observation
from .pi0 import PI0Policy, PolicyRun

__all__ = ["SAVINGS", "Chunk", "Observation", "PI0Policy", "PolicyRun", "Saving", "SavingRun"]
