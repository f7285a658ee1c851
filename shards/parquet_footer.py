"""Reads which codecs a parquet file names, before pyarrow decodes it.

A small file that is compressed could decode into gigabytes, and pyarrow's own answer to this question,
`ColumnChunkMetaData.compression`, ends the process where a file names a codec that does not exist. The footer
is a struct in Thrift's compact protocol:
https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md
"""

from typing import Any

_MAGIC = b"PAR1"
# Types of the protocol. Parquet's footer has no maps and no sets.
_TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _, _, _STRUCT = range(1, 13)
# Structs in structs: a footer has six.
_DEPTH = 16
# Numbers of fields in parquet.thrift: FileMetaData, RowGroup, ColumnChunk, ColumnMetaData.
_ROW_GROUPS, _COLUMNS, _META_DATA, _CODEC = 4, 1, 3, 4


def codecs_of(data: bytes) -> list[Any]:
    """The number of the codec of every column chunk of a parquet file; 0 stands for no compression.

    Raises:
        ValueError: It is no parquet file, or its footer is damaged.
    """
    if data[-4:] != _MAGIC or len(data) < 12:
        raise ValueError("it is no parquet file")
    size = int.from_bytes(data[-8:-4], "little")
    try:
        footer = _Footer(data[max(0, len(data) - 8 - size) : -8]).struct(0)
        chunks = [chunk for group in footer[_ROW_GROUPS] for chunk in group[_COLUMNS]]
        return [chunk[_META_DATA][_CODEC] for chunk in chunks]
    except (IndexError, KeyError, TypeError) as error:
        raise ValueError("it is no parquet file, or damaged") from error


class _Footer:
    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def struct(self, depth: int) -> dict[int, Any]:
        """The values of a struct by the numbers of their fields."""
        if depth > _DEPTH:
            raise ValueError("it is nested too deeply")
        found, field = {}, 0
        while head := self._byte():
            field = field + (head >> 4) if head >> 4 else self._integer()
            kind = head & 15
            found[field] = kind == _TRUE if kind in (_TRUE, _FALSE) else self._value(kind, depth + 1)
        return found

    def _value(self, kind: int, depth: int) -> Any:
        if kind in (_I16, _I32, _I64):
            return self._integer()
        if kind == _STRUCT:
            return self.struct(depth)
        if kind == _LIST:
            head = self._byte()
            count = self._unsigned() if head >> 4 == 15 else head >> 4
            return [self._value(head & 15, depth) for _ in range(count)]
        # Texts and the like are not needed.
        sizes = {_TRUE: 1, _FALSE: 1, _BYTE: 1, _DOUBLE: 8}
        size = self._unsigned() if kind == _BINARY else sizes[kind]
        self._at += size
        return None

    def _byte(self) -> int:
        self._at += 1
        return self._data[self._at - 1]

    def _unsigned(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128 or shift > 63:
                return value

    def _integer(self) -> int:
        value = self._unsigned()
        return (value >> 1) ^ -(value & 1)
