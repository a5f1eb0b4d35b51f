"""What a block costs at rest: one codec per file."""

from ...stream.table import Table
from .base import Codec

CODECS: Table[Codec] = Table(
    "codec",
    __name__,
    {
        "plain": "plain:PlainCodec",
        "fp8": "fp8:Fp8Codec",
        "int8": "int8:Int8Codec",
        "int4": "int4:Int4Codec",
        "int2": "int2:Int2Codec",
        "adaptive": "adaptive:AdaptiveCodec",
        "vidkv": "vidkv:VidKVCodec",
        "zipcache": "zipcache:ZipCacheCodec",
    },
)

__all__ = ["CODECS", "Codec"]
