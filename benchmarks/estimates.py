"""Estimates against what others published: each latency of the shipped profiles predicted with itself left out.

    python benchmarks/estimates.py            the table, the shares that all of them together give, and the error
    python benchmarks/estimates.py --write    also into docs/devices.md and toolkit/estimates/factors.py

Nothing is measured. Run it with --write after a published latency or a processor of a profile was changed.
"""

from __future__ import annotations

import sys
from pathlib import Path

from toolkit.estimates import published

ROOT = Path(__file__).resolve().parent.parent
DOCS, FACTORS = ROOT / "docs" / "devices.md", ROOT / "toolkit" / "estimates" / "factors.py"
BEGIN, END = "<!-- estimates: written by benchmarks/estimates.py -->", "<!-- end of estimates -->"


def factors(shares: dict[str, tuple[float, float]]) -> str:
    """The text of factors.py with these shares."""
    head = FACTORS.read_text(encoding="utf-8").partition("SHARES")[0]
    rows = "".join(f'    "{name}": ({share:g}, {width:g}),\n' for name, (share, width) in shares.items())
    return f"{head}SHARES: dict[str, tuple[float, float]] = {{\n{rows}}}\n"


def documented(table: str) -> str:
    """The text of docs/devices.md with this table."""
    before, _, rest = DOCS.read_text(encoding="utf-8").partition(BEGIN)
    return f"{before}{BEGIN}\n{table}\n{END}{rest.partition(END)[2]}"


def main() -> None:
    """Print the table; with --write also keep it."""
    known = published.quoted()
    rows, strangers = (published.left_out(known, devices=devices) for devices in (False, True))
    shares = published.shares(known)
    table = "\n".join((published.summary(rows, strangers), "", *published.table(rows)))
    print(table)
    print(factors(shares))
    if "--write" in sys.argv[1:]:
        DOCS.write_text(documented(table), encoding="utf-8")
        FACTORS.write_text(factors(shares), encoding="utf-8")


if __name__ == "__main__":
    main()
