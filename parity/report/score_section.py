"""The page's section on the judge itself: what it was shown to catch."""

from collections.abc import Mapping
from html import escape
from typing import Any

HEADERS = ("fault", "planted", "caught", "located", "explained", "below detection")


def section(score: Mapping[str, Any] | None) -> str:
    """A sentence and a folded table; nothing if no score was measured.

    Args:
      score: as `mutations.table.summary` has it.
    """
    if score is None:
        return ""
    head = "".join(f"<th>{name}</th>" for name in HEADERS)
    rows = "".join(_row(row) for row in score["faults"])
    return (
        "<h2>What a green verdict is worth</h2><p>Known faults were planted in real "
        f"runs, one at a time (commit {escape(score['commit'])}): "
        f"{escape(score['sentence'])}.</p><details><summary>{len(score['faults'])} "
        "faults</summary><div "
        f"class=scroll><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div></details>"
    )


def _row(row: Mapping[str, Any]) -> str:
    counts = "".join(
        f'<td class="number">{row[word]} of {row["detectable"]}</td>'
        for word in ("caught", "located", "explained")
    )
    below = escape(
        ", ".join(f"{where} (z {z:.2g})" for where, z in row["below"].items())
    )
    return (
        f'<tr><th scope="row"><code>{escape(row["name"])}</code></th><td class="number">{row["planted"]}</td>'
        f"{counts}<td>{below}</td></tr>"
    )
