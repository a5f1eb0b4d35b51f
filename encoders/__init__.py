"""Pictures and words to tokens, keys and values."""

from .load import FAMILIES, load_model
from .model import ModelSpec, Row, Text, VideoLLM, VisionHalf
from .tokens import FrameTokens

__all__ = ["FAMILIES", "FrameTokens", "ModelSpec", "Row", "Text", "VideoLLM", "VisionHalf", "load_model"]
