"""Vision towers taken apart: any subset of a picture's patches through any layer."""

from .base import Layout, Prepared, Tower

__all__ = ["Layout", "Prepared", "Tower"]
