"""Images that a Python function of one's own finds: code, which runs only where the command line allows its module."""

from __future__ import annotations

from collections.abc import Collection
from importlib import import_module
from typing import Annotated, Any, ClassVar

from pydantic import Field

from toolkit.core import Records
from toolkit.errors import InputError, UnsupportedError
from toolkit.schema import Component


class Function(Component):
    """A Python function that gives the images, as toolkit.core.Records."""

    runs_code: ClassVar[bool] = True  # load() asks for the modules that are allowed

    function: Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")]
    """The function, as module:name; the module must be allowed on the command line with --allow-code."""
    arguments: dict[str, Any] = Field(default_factory=dict)
    """What it is called with, by name."""

    def load(self, allow_code: Collection[str] = ()) -> Records:
        """What the function returns; UnsupportedError, before anything is imported, where its module is not allowed."""
        module, _, name = self.function.partition(":")
        where = f"datasets.callable {self.function}"
        if module not in allow_code:
            fix = f"add --allow-code {module} if you trust it"
            raise UnsupportedError(where, f"would run code of the module {module!r}", fix)
        try:
            function = getattr(import_module(module), name)
        except ModuleNotFoundError as error:
            raise InputError(where, str(error), "install it, or put its folder into PYTHONPATH") from error
        except AttributeError as error:
            raise InputError(where, f"the module has no {name!r}") from error
        found = function(**self.arguments)
        if not isinstance(found, Records):
            raise InputError(where, f"returned {type(found).__name__}", "return toolkit.core.Records")
        return found
