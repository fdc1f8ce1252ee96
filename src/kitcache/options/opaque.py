"""Opaque: the base of values that hold a secret, and that no tool shows.

Their fields are kept in closures, so that neither `vars`, `__slots__` nor a debugger's walk over
attributes finds them; only the properties of the class itself give them.
"""

from typing import NoReturn


class Opaque:
    """A value without iteration, comparison by content, pickling, copying or assignment."""

    __slots__ = ()

    def _keep(self, **fields: object) -> None:
        """Store each field in a closure, under its name; each name is in the class's __slots__."""
        for name, value in fields.items():
            object.__setattr__(self, name, lambda value=value: value)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"{type(self).__name__} cannot be changed")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"{type(self).__name__} cannot be changed")

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError(f"{type(self).__name__} holds a secret: it is neither pickled nor copied")
