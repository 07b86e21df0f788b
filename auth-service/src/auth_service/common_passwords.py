"""Passwords that are tried first, by everybody or by whoever knows the owner (NIST SP 800-63B, 5.1.1.2)."""

import unicodedata
from functools import cache
from importlib.resources import files


def is_common(password: str) -> bool:
    """Whether it is one of the commonest, however it is written."""
    return _folded(password) in _common()


def is_one_of(password: str, *known: str) -> bool:
    """Whether it is something that others know of its owner, however it is written."""
    return _folded(password).strip() in map(_folded, known)


def _folded(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold()


@cache
def _common() -> frozenset[str]:
    lines = files("auth_service").joinpath("common_passwords.txt").read_text(encoding="utf-8").splitlines()
    return frozenset(line for line in lines if not line.startswith("#"))
