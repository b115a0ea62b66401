"""`python -m toolkit`, and the entry point of the `edgekit` command."""

from __future__ import annotations

from toolkit.cli import main

if __name__ == "__main__":
    main()
