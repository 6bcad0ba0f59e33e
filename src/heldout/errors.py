"""Errors that a user can cause and mend.

Every message says what was wrong, where, and what would be accepted. The command line prints the message alone and
ends with exit code 2; anything that is not a `HeldoutError` is a defect of ours and keeps its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class HeldoutError(Exception):
    """Base of every error that a user can cause and mend."""


class ConfigError(HeldoutError):
    """A setting, preset, field or argument that is not accepted."""


class SplitError(HeldoutError):
    """A split that is empty, overlaps another, or is used against its role."""


class SiteError(HeldoutError):
    """A place in a network that does not exist, does not run, or cannot be replaced."""


class NetworkError(HeldoutError):
    """A network that fails in the middle of a batch, or returns what cannot be scored."""


class NonFiniteError(NetworkError):
    """NaN or infinite values where a finite number is needed."""


class ProxyError(HeldoutError):
    """A simplification that cannot be fitted or applied."""


class CheckpointError(HeldoutError):
    """Weights that are corrupt, foreign, or do not fit the network."""


class StoreError(HeldoutError):
    """A run directory or store that cannot be written, is in use, or was made by another version."""


class EvidenceError(HeldoutError):
    """Evidence that is missing or does not have the columns that are asked of it."""


class StatisticsError(HeldoutError):
    """Numbers from which the statistic cannot be computed."""


def nearest(given: str, valid: Iterable[str], n: int = 3) -> list[str]:
    """The valid names closest to what was given, best first; all of them where there are few."""
    names = list(dict.fromkeys(valid))
    close = difflib.get_close_matches(given, names, n=n, cutoff=0.4)
    return close or (names if len(names) <= 8 else [])


def choices(given: str, valid: Iterable[str]) -> str:
    """The tail of a message about an unknown name: the nearest valid ones, or how many there are."""
    names = list(dict.fromkeys(valid))
    close = nearest(given, names)
    if not names:
        return "there are none to choose from"
    if len(names) <= 8:
        return "choose from " + ", ".join(names)
    listed = "nearest: " + ", ".join(close) if close else "for example " + ", ".join(names[:5])
    return f"{listed} ({len(names)} in all)"


def unknown(kind: str, given: str, valid: Iterable[str]) -> str:
    """The one sentence for a name that is not known: what was given and what would be accepted."""
    return f"unknown {kind} {given!r}; {choices(given, valid)}"
