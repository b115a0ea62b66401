"""The version of an installed package, without importing it."""

from __future__ import annotations

from importlib import metadata


def version_of(package: str) -> str | None:
    """Installed version on this machine, or None."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
