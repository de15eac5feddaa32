"""Print the score card of every recorded stream, every client format and every official SDK.

    python tests/conformance/run.py [--only PART] [--node DIR] [--log DIR]

`.` is equal, `e` an exception with a reason (`conf_exceptions.py`), `x` a difference, `-` not asked. The exit status is 1 if
there is an `x`, or an exception that nothing needs.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from conf_card import Card, columns, fill
from conf_readers import NodeReader, PythonReader, Reader, install, node_missing
from conf_stage import recordings, stage

_ALL: Final = ("legal", "python", "node")


def main() -> int:
    """Fill the card, print and keep it; return the exit status."""
    asked = _arguments()
    recorded = [one for one in recordings() if asked.only in one.name]
    if not recorded:
        print("no recorded streams: set LUTHIEN_RECORDED to their folder")
        return 0 if not asked.only else 1
    logging.getLogger("luthien_asgi").setLevel(logging.ERROR)  # a recording that ends in an error is said to, on each cell
    with ExitStack() as open_things:
        readers: dict[str, Reader] = {"python": PythonReader()}
        why_not = node_missing() or install(asked.node)
        if not why_not:
            node = readers["node"] = NodeReader(asked.node)
            open_things.callback(node.close)
        card = Card(columns(_ALL[: 2 if why_not else 3]), complete=not asked.only and not why_not)
        on = open_things.enter_context(stage())
        for one in recorded:
            fill(card, on, readers, one)
    text = _written(card)
    print(text)
    if why_not:
        print(f"The SDKs for TypeScript were not asked: {why_not}.")
    _keep(card, text, asked.log)
    return 1 if card.count("x") or card.idle else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or tempfile.gettempdir()) / "luthien-asgi-conformance"
    parser.add_argument("--only", default="", help="recordings with this in their name")
    parser.add_argument("--node", type=Path, default=cache, help="folder for the packages of the SDKs for TypeScript")
    parser.add_argument("--log", type=Path, help="folder for the card as Markdown and JSON")
    return parser.parse_args()


def _written(card: Card) -> str:
    """Return the card as Markdown."""
    titles = [column.title for column in card.columns]
    lines = [f"| recording | {' | '.join(titles)} |", "| --- |" + " :-: |" * len(titles)]
    for name, row in card.cells.items():
        lines.append(f"| {name} | {' | '.join(row[column].mark if column in row else '-' for column in card.columns)} |")
    totals = [f"{sum(row[column].mark != 'x' for row in card.cells.values())}/{len(card.cells)}" for column in card.columns]
    lines += [f"| **{len(card.cells)} recordings** | {' | '.join(totals)} |", ""]
    lines.append(f"{card.count('.')} equal, {card.count('e')} with an exception, {card.count('x')} different")
    for name, row in card.cells.items():
        found: dict[str, list[str]] = {}
        for column, cell in row.items():
            for difference in cell.red:
                found.setdefault(difference, []).append(column.title)
        lines += [f"- x {name}: {difference} ({', '.join(where)})" for difference, where in found.items()]
    lines += [f"- no longer needed: {one.recording}, {one.client}, {one.path}" for one in card.idle]
    return "\n".join(lines)


def _keep(card: Card, text: str, folder: Path | None) -> None:
    if folder is None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    cells: dict[str, Any] = {
        name: {column.title: {"red": cell.red, "excused": cell.excused} for column, cell in row.items()}
        for name, row in card.cells.items()
    }
    (folder / "score-card.md").write_text(text + "\n", encoding="utf-8")
    (folder / "score-card.json").write_text(json.dumps(cells, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
