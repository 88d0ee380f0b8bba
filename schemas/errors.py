"""Failures in, one coded sentence out: the error tree that every stage raises from.

HeadraceError
├── Transient    a later or other attempt may succeed: retried, bounded, with jitter
└── Permanent    the same attempt fails again: reported, or written to dead_letters

Each leaf class declares a stable ``code`` and three templates (``what`` happened, ``why``,
``fix``), filled from the keyword data it is raised with. Codes by area: HR-1xxx settings and
command line, HR-2xxx ingest, HR-3xxx processors, HR-4xxx ClickHouse, HR-5xxx data directory.
"""

from __future__ import annotations

from typing import ClassVar


class HeadraceError(Exception):
    """A failure with a stable code that says what happened, why, and what to do."""

    code: ClassVar[str] = ""
    what: ClassVar[str] = ""
    why: ClassVar[str] = ""
    fix: ClassVar[str] = ""
    registry: ClassVar[dict[str, type[HeadraceError]]] = {}

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if not cls.__dict__.get("code"):
            return
        other = HeadraceError.registry.get(cls.code)
        if other is not None and other.__qualname__ != cls.__qualname__:
            raise TypeError(f"{cls.code} is declared by both {other.__name__} and {cls.__name__}")
        HeadraceError.registry[cls.code] = cls

    def __init__(self, **data: object) -> None:
        self.data = data
        super().__init__(f"{self.code}: {self.what_text}")

    @property
    def what_text(self) -> str:
        """What happened, with the data filled in."""
        return self.what.format(**self.data)

    @property
    def why_text(self) -> str:
        """Why it happened, with the data filled in."""
        return self.why.format(**self.data)

    @property
    def fix_text(self) -> str:
        """What to do about it, with the data filled in."""
        return self.fix.format(**self.data)

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.data))


def _rebuild(cls: type[HeadraceError], data: dict[str, object]) -> HeadraceError:
    return cls(**data)


class Transient(HeadraceError):
    """A failure that a later attempt, or another provider, may not meet again."""


class Permanent(HeadraceError):
    """A failure that the same attempt meets again: retrying is of no use."""
