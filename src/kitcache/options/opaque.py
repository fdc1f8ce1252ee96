"""Opaque: the base class of values that hold a secret.

The fields are in closures, so neither `vars`, `__slots__` nor a debugger's walk over attributes
shows them. Only the properties of the class return them.
"""

from typing import NoReturn


class Opaque:
    """A value without iteration, comparison by content, pickling, copying or assignment."""

    __slots__ = ()

    def _keep(self, **fields: object) -> None:
        """Store each field in a closure, under its name, which the class has in __slots__."""
        for name, value in fields.items():
            object.__setattr__(self, name, lambda value=value: value)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"{type(self).__name__} cannot be changed")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"{type(self).__name__} cannot be changed")

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError(f"{type(self).__name__} holds a secret: it is neither pickled nor copied")
