"""What bench/attacks.py found, as tables in Markdown and as a picture: bench/attacks.md, bench/attacks.svg."""

import json
from collections.abc import Iterable, Iterator
from html import escape
from typing import Any

from dmlsite.supervisor import ROOT

Row = dict[str, Any]
CELL, HIGH, LEFT, TOP = 74, 22, 150, 46
"""Of the picture, in pixels: a cell, the space for the attacks' names and for the rules'."""


def write() -> None:
    found = json.loads((ROOT / "bench" / "results" / "attacks.json").read_text())
    parts = {name: part for name, part in found.items() if isinstance(part, dict)}
    text = [HEADING]
    if "rules" in parts:
        text += ["## Accuracy after ten rounds, nothing audited", RULES_TOLD, *accuracy_tables(_crowds(parts["rules"]))]
        (ROOT / "bench" / "attacks.svg").write_text(picture(_crowds(parts["rules"])))
    if "audits" in parts:
        text += ["## Audited, with the mean", AUDITS_TOLD, *audit_tables(_crowds(parts["audits"]))]
    if "honest" in parts:
        text += ["## The honest", HONEST_TOLD, *honest_table(parts["honest"])]
    if told := parts.get("flower"):
        text += [f"## Flower {told['flower']}", *flower_table(told)]
    (ROOT / "bench" / "attacks.md").write_text("\n".join(text) + "\n")


HEADING = "# Attacks\n\nWritten by `make bench-attacks`; what it says is in [README.md](README.md#attacks).\n"
RULES_TOLD = (
    "In percent of the hold-out; for the backdoor, behind the stroke, how many of the marked digits are taken for the cheat's. Rules are told the true "
    "number of cheats, or as many as they can withstand. *Screened*: the mean, with what looks odd counting half.\n"
)
AUDITS_TOLD = (
    "*Convicted*: cheats convicted, of how many; after how many rounds and audits of its own the last of them was. *Accuracy*: at the end, the cheats' "
    "work done by others from then on. *Screened*: of the cheats' updates and of the honest ones, how many the screen named. *Replayed*: steps that audits did again, of all that were trained. Newcomers: all workers are new, ten rounds. Long record: "
    "every worker has passed 1,000 audits in a row and is audited with 8 %, thirty rounds.\n"
)
HONEST_TOLD = (
    "Twelve honest workers, on TensorFlow with one thread and oneDNN, with two threads and without, and on JAX. *Contradicted*: replays that a claim did not "
    "agree with; a second one, done otherwise, has to before anybody is accused.\n"
)


def _crowds(part: Row) -> dict[str, dict[str, Row]]:
    """{"1 of 4": {attack: cells}}"""
    found: dict[str, dict[str, Row]] = {}
    for name, row in part.items():
        if isinstance(row, dict):
            crowd, _, attack = name.partition(": ")
            found.setdefault(crowd, {})[attack] = row
    return found


def _columns(rows: dict[str, Row]) -> list[str]:
    return list(dict.fromkeys(name for row in rows.values() for name in row))


def _table(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    columns = list(columns)
    yield "| " + " | ".join(columns) + " |"
    yield "|---" * len(columns) + "|"
    for row in rows:
        yield "| " + " | ".join(row) + " |"
    yield ""


def accuracy_tables(crowds: dict[str, dict[str, Row]]) -> Iterator[str]:
    for crowd, rows in crowds.items():
        columns = _columns(rows)
        yield f"**{crowd} cheat**\n"
        yield from _table(
            ["attack", *columns], ([name, *(_cell(row.get(rule)) for rule in columns)] for name, row in rows.items())
        )


def _cell(cell: Row | None) -> str:
    if cell is None:
        return "–"
    fooled = f" / {100 * cell['fooled']:.0f}" if "fooled" in cell else ""
    return f"{100 * cell['accuracy']:.1f}{fooled}"


def audit_tables(crowds: dict[str, dict[str, Row]]) -> Iterator[str]:
    columns = ["attack", "convicted", "rounds, audits", "accuracy", "screened", "replayed", "innocent"]
    for crowd, rows in crowds.items():
        for who in ("newcomers", "long record"):
            yield f"**{crowd} cheat, {who}**\n"
            yield from _table(columns, ([attack, *_audited(row[who])] for attack, row in rows.items()))


def _audited(row: Row) -> list[str]:
    when = f"{row['rounds']}, {row['audits']}" if row["convicted"] else "–"
    named = f"{100 * row['screened']:.0f} / {100 * row['screened_honest']:.0f} %"
    shares = [f"{100 * row['accuracy']:.1f} %", named, f"{100 * row['audit_share']:.0f} %"]
    return [f"{row['convicted']} of {row['of']}", when, *shares, str(row["innocent"])]


def honest_table(part: Row) -> Iterator[str]:
    counts = {model: row for model, row in part.items() if isinstance(row, dict)}
    columns = ["model", "provider-rounds", "screened", "contradicted", "convicted"]
    names = ["provider_rounds", "screened", "contradicted", "convicted"]
    yield from _table(columns, ([model, *(str(row[name]) for name in names)] for model, row in counts.items()))


def flower_table(told: Row) -> Iterator[str]:
    rows = [
        ["says that it has 10⁹ samples, the others 1,000", f"weights of {told['inflated']:.2f}: the cheat's"],
        ["sends one number that is none", f"{told['not_finite']} of the mean's weights is none, for all from then on"],
        [
            "sends -100, against `FedTrimmedAvg(0.2)`",
            f"weights of {told['trimmed']:.2f}; the plain mean has {told['mean']:.2f}: nothing is trimmed of four",
        ],
    ]
    yield from _table(["one of four, where the others send 1", "what becomes of it"], rows)


def picture(crowds: dict[str, dict[str, Row]]) -> str:
    """A cell for each attack and rule: the darker, the less accurate."""
    columns = list(dict.fromkeys(name for rows in crowds.values() for name in _columns(rows)))
    width, height = LEFT + CELL * len(columns) + 10, sum(TOP + HIGH * len(rows) + 14 for rows in crowds.values())
    drawn = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">',
        "<title>Accuracy in percent after ten rounds, for each attack and aggregation rule, nothing audited</title>",
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
    ]
    top = 0
    for crowd, rows in crowds.items():
        drawn.append(f'<text x="8" y="{top + 18}" font-weight="bold">{crowd} cheat</text>')
        drawn += [
            _text(LEFT + CELL * n + CELL / 2, top + TOP - 8, name.replace(", ", "+")) for n, name in enumerate(columns)
        ]
        for line, (attack, row) in enumerate(rows.items()):
            y = top + TOP + HIGH * line
            drawn.append(f'<text x="8" y="{y + 15}">{escape(attack)}</text>')
            drawn += [_square(LEFT + CELL * n, y, row.get(name)) for n, name in enumerate(columns)]
        top += TOP + HIGH * len(rows) + 14
    return "\n".join([*drawn, "</svg>"]) + "\n"


def _text(x: float, y: float, text: str, fill: str = "#222") -> str:
    return f'<text x="{x:g}" y="{y:g}" text-anchor="middle" fill="{fill}">{escape(text)}</text>'


def _square(x: int, y: int, cell: Row | None) -> str:
    if cell is None:
        return _text(x + CELL / 2, y + 15, "–", "#888")
    good = max(0.0, min(1.0, (cell["accuracy"] - 0.1) / 0.85))  # by chance a tenth is right
    box = f'<rect x="{x + 1}" y="{y + 1}" width="{CELL - 2}" height="{HIGH - 2}" fill="hsl(20,70%,{35 + 60 * good:.0f}%)"/>'
    return box + _text(x + CELL / 2, y + 15, _cell(cell), "#222" if good > 0.4 else "#fff")
