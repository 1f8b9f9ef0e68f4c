"""Parquet, by pyarrow: exact decimals, and times as timestamps in UTC with milliseconds.

How many digits a column needs is known at the end only. So the rows are written with digits as text first, into a file
of its own, and then once more as decimals of the least scale that holds them all. Columns that would need more than 38
digits stay text, and that is told. Both times it is written by groups of rows, so memory is bounded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from daemon.commands.export.rows import Row, Type

GROUP: Final = 65_536
"""Rows of a group."""

MOST_DIGITS: Final = 38
"""Of a decimal128."""

_TYPES: Final = {
    "text": pa.string(),
    "digits": pa.string(),
    "moment": pa.timestamp("ms", tz="UTC"),
    "number": pa.int64(),
    "flag": pa.bool_(),
}


class _Digits:
    """How many digits the values of a column have before and behind the point."""

    def __init__(self) -> None:
        self.before = 1
        self.behind = 0
        self._seen: set[tuple[int, int]] = set()

    def look(self, values: Sequence[str | None]) -> None:
        for value in values:
            if value is None:
                continue
            at = value.find(".")
            shape = (len(value), at)
            if shape in self._seen and "e" not in value and "E" not in value:
                continue
            _, digits, exponent = Decimal(value).as_tuple()
            behind = max(0, -int(exponent))
            self.before = max(self.before, len(digits) + int(exponent))
            self.behind = max(self.behind, behind)
            self._seen.add(shape)


class Parquet:
    """A Parquet file: a `Sink`."""

    def __init__(self, path: Path, columns: Mapping[str, Type]) -> None:
        """Raises: OSError."""
        self._path = path
        self._draft = path.with_name(f"{path.name}-text")
        self._names = list(columns)
        self._types: list[Type] = list(columns.values())
        self._digits = {at: _Digits() for at, type_ in enumerate(self._types) if type_ == "digits"}
        self._rows: list[Row] = []
        self._schema = pa.schema(list(zip(self._names, (_TYPES[type_] for type_ in self._types), strict=True)))
        self._writer = pq.ParquetWriter(self._draft, self._schema)

    def add(self, rows: Sequence[Row]) -> None:
        """See `Sink`."""
        self._rows += rows
        if len(self._rows) >= GROUP:
            self._flush()

    def close(self) -> list[str]:
        """See `Sink`."""
        try:
            try:
                self._flush()
            finally:
                self._writer.close()
            return self._write_decimals()
        finally:
            self._draft.unlink(missing_ok=True)

    def abandon(self) -> None:
        """See `Sink`."""
        try:
            self._writer.close()
        finally:
            self._draft.unlink(missing_ok=True)

    def _flush(self) -> None:
        if not self._rows:
            return
        rows, self._rows = self._rows, []
        columns: list[Sequence[Any]] = list(zip(*rows, strict=True))
        for at, digits in self._digits.items():
            digits.look(columns[at])
        arrays = [pa.array(column, field.type) for column, field in zip(columns, self._schema, strict=True)]
        self._writer.write_table(pa.Table.from_arrays(arrays, schema=self._schema))

    def _write_decimals(self) -> list[str]:
        remarks: list[str] = []
        schema = self._schema
        for at, digits in self._digits.items():
            needed = digits.before + digits.behind
            if needed > MOST_DIGITS:
                remarks.append(
                    f"{self._names[at]} stays text: its values need {needed} digits, a decimal has {MOST_DIGITS}"
                )
                continue
            schema = schema.set(at, pa.field(self._names[at], pa.decimal128(MOST_DIGITS, digits.behind)))
        with pq.ParquetFile(self._draft) as draft, pq.ParquetWriter(self._path, schema) as writer:
            for number in range(draft.num_row_groups):
                table = draft.read_row_group(number)
                for at, field in enumerate(schema):
                    if pa.types.is_decimal(field.type):
                        values = [None if v is None else Decimal(v) for v in table.column(at).to_pylist()]
                        table = table.set_column(at, field, pa.array(values, field.type))
                writer.write_table(table)
        return remarks
