"""The document and the laboratory know the same faults."""

from __future__ import annotations

import re
from collections import Counter

from lab_matrix import BEGIN, DOCUMENT, END
from lab_rows import WIRES
from lab_servers import COMMANDS
from lab_table import GROUPS, all_rows


def test_every_fault_has_a_name_of_its_own() -> None:
    """A line of the matrix is found by it."""
    assert [name for name, count in Counter(row.name for row in all_rows()).items() if count > 1] == []
    assert {row.group for row in all_rows()} == set(GROUPS)


def test_the_document_has_every_fault_in_its_order() -> None:
    """`python tests/faults/run.py --markdown` writes it anew."""
    written = DOCUMENT.read_text().split(BEGIN)[1].split(END)[0]
    lines = re.findall(r"^\| (?!fault |---)([^|]+) \| (`.*) \|$", written, re.MULTILINE)
    assert [name for name, _ in lines] == [row.name for row in all_rows()]
    assert f"| fault | {' | '.join(COMMANDS)} |" in written


def test_the_document_has_a_mark_for_each_cell_and_none_is_wrong() -> None:
    """What makes no sense for a form has a dash there, in each column."""
    written = DOCUMENT.read_text().split(BEGIN)[1].split(END)[0]
    found = {name: shown.split(" | ") for name, shown in re.findall(r"^\| ([^|]+) \| (`.*) \|$", written, re.MULTILINE)}
    for row in all_rows():
        for server, shown in zip(COMMANDS, found[row.name], strict=True):
            asked = "".join(
                "." if wire in row.only and row.want(server, stream=stream) is not None else "-"
                for wire in WIRES
                for stream in (True, False)
            )
            assert shown.strip("`").replace("~", ".") == asked, (row.name, server)
