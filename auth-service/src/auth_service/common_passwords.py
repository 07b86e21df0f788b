"""Passwords that everybody tries first (NIST SP 800-63B, 5.1.1.2)."""

import unicodedata
from functools import cache
from importlib.resources import files


def is_common(password: str) -> bool:
    """Whether it is one of the commonest, however it is written."""
    return unicodedata.normalize("NFKC", password).casefold() in _common()


@cache
def _common() -> frozenset[str]:
    lines = files("auth_service").joinpath("common_passwords.txt").read_text(encoding="utf-8").splitlines()
    return frozenset(line for line in lines if not line.startswith("#"))
