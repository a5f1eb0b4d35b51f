"""What a block costs at rest: one codec per file."""

from ...stream.table import Table
from .base import Codec

CODECS: Table[Codec] = Table("codec", __name__, {"plain": "plain:PlainCodec"})

__all__ = ["CODECS", "Codec"]
