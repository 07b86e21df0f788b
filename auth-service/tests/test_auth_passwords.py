"""Hashing: the whole password counts, and a refusal costs the same whatever is stored."""

import asyncio
import contextlib

import bcrypt
import pytest

from auth_service.passwords import PasswordHasher


@pytest.fixture
def hasher():
    with contextlib.closing(PasswordHasher(cost=6, workers=2)) as found:
        yield found


def hashed(password: str, *, cost: int) -> str:
    with contextlib.closing(PasswordHasher(cost=cost, workers=1)) as older:
        return asyncio.run(older.hash(password))


@pytest.mark.parametrize("length", [8, 71, 72, 73, 128])
def test_every_character_counts(hasher, length):
    password = "🔑" * (length - 1)
    stored = asyncio.run(hasher.hash(password + "a"))
    assert asyncio.run(hasher.verify(password + "a", stored))
    assert not asyncio.run(hasher.verify(password + "b", stored))


def test_the_same_password_is_stored_differently_each_time(hasher):
    assert asyncio.run(hasher.hash("securepassword")) != asyncio.run(hasher.hash("securepassword"))


def test_a_refusal_computes_the_same_for_nobody_and_for_an_older_hash(hasher, monkeypatch):
    rounds = []
    genuine_check, genuine_hash = bcrypt.checkpw, bcrypt.hashpw

    def count(salt: bytes) -> None:
        rounds.append(2 ** int(salt.split(b"$")[2]))

    monkeypatch.setattr(bcrypt, "checkpw", lambda word, stored: (count(stored), genuine_check(word, stored))[1])
    monkeypatch.setattr(bcrypt, "hashpw", lambda word, salt: (count(salt), genuine_hash(word, salt))[1])
    for stored in (None, hashed("securepassword", cost=4), hashed("securepassword", cost=6)):
        rounds.clear()
        assert not asyncio.run(hasher.verify("wrong", stored))
        assert sum(rounds) == 2**6


def test_nobodys_hash_fits_no_password(hasher):
    for password in ("", "securepassword", "\0"):
        assert not asyncio.run(hasher.verify(password, None))


def test_only_a_cheaper_hash_is_outdated(hasher):
    assert hasher.is_outdated(hashed("x", cost=5))
    assert not hasher.is_outdated(hashed("x", cost=6))
    assert not hasher.is_outdated(hashed("x", cost=7))
