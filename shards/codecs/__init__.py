"""Codecs: how targets become small arrays. Each states its size before a build and its error after it.

Every module of this package registers one codec; a plug-in registers more in `CODECS`.
"""

from densecli.shards.codecs.base import CODECS, Codec, Errors, codec_from_spec, combine_errors
from densecli.shards.codecs.features import Features
from densecli.shards.codecs.lowrank import LowRank
from densecli.shards.codecs.rows import Rows
from densecli.shards.codecs.topk import TopK
from densecli.shards.quantise import Arrays

__all__ = [
    "CODECS",
    "Arrays",
    "Codec",
    "Errors",
    "Features",
    "LowRank",
    "Rows",
    "TopK",
    "codec_from_spec",
    "combine_errors",
]
