"""Reads everything in an HDF5 file, in a process of its own: the HDF5 library may crash on a damaged file.

Run as a script, `hdf5_trial.py LARGEST [FILE]` (else from stdin); imports nothing of toolkit. Arrays of more than
LARGEST bytes, and what is stored in other files, are left to the checks that follow.
"""

from __future__ import annotations

import resource
import sys
from io import BytesIO
from typing import Any

MEMORY = 4 * 2**30  # bytes of address space beside the file itself


def read_all(source: Any, largest: int) -> None:
    """Read every attribute and array once."""
    import h5py

    with h5py.File(source, "r") as file:
        pending: list[Any] = [file]
        seen: set[int] = set()
        while pending:
            item = pending.pop()
            address = h5py.h5o.get_info(item.id).addr
            if address in seen:
                continue
            seen.add(address)
            for name in item.attrs:
                item.attrs[name]
            if isinstance(item, h5py.Dataset):
                inside = not (item.external or item.is_virtual) and item.nbytes <= largest
                _ = item[()] if inside else None
            elif isinstance(item, h5py.Group):
                names = [name for name in item if isinstance(item.get(name, getlink=True), h5py.HardLink)]
                pending += [item[name] for name in names]


def main(largest: int, path: str | None) -> int:
    """Exit code 0, or 1 with the library's own words on stderr."""
    data = None if path else sys.stdin.buffer.read()
    limit = MEMORY + (len(data) if data else 0)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    try:
        read_all(path or BytesIO(data or b""), largest)
    except Exception as error:  # whatever the library makes of the bytes
        sys.stderr.write((str(error).strip().splitlines() or [type(error).__name__])[0][:160])
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else None))
