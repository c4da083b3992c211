"""The file of errors: rows that were refused as they were, with the error as last columns."""

import csv
import json
from collections.abc import Iterable
from typing import TextIO

from standalone.importing.fields import REJECT_COLUMNS
from standalone.importing.files import Table
from standalone.importing.items import Reject


class RejectsFile:
    """Writes rows that were refused. Corrected, the file can be imported: its last columns are ignored."""

    def __init__(self, file: TextIO, table: Table) -> None:
        self._file = file
        self._table = table
        columns = table.columns or ()
        self._kept = [index for index, name in enumerate(columns) if name not in REJECT_COLUMNS]
        self._csv = csv.writer(file, delimiter=table.delimiter, lineterminator="\n")
        if table.columns is not None:
            self._csv.writerow([*(columns[index] for index in self._kept), *REJECT_COLUMNS])

    def write(self, rejects: Iterable[Reject]) -> None:
        for each in rejects:
            error = (each.fault.code, each.fault.message, each.fault.field or "")
            if self._table.columns is not None:
                self._csv.writerow([*(each.row.cells[index] for index in self._kept), *error])
                continue
            is_object = bool(each.row.values) or each.row.fault is None
            given = {**each.row.values} if is_object else {"line": each.row.cells[0]}
            # After the fields of the row, also if it has errors of an earlier import.
            given = {name: value for name, value in given.items() if name not in REJECT_COLUMNS}
            self._file.write(json.dumps({**given, **dict(zip(REJECT_COLUMNS, error, strict=True))}, ensure_ascii=False))
            self._file.write("\n")
        self._file.flush()
