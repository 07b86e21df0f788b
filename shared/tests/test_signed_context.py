"""The signed context: whoever can forge, keep or repeat it can be anybody."""

import time
from dataclasses import replace

import pytest

from shared.context import (
    MAX_AGE_S,
    MAX_AHEAD_S,
    SIGNATURE_HEADER,
    Caller,
    ContextSigner,
    ContextVerifier,
    SignatureError,
)

KEY = b"k" * 16 + b"0123456789abcdef"
OTHER_KEY = b"o" * 16 + b"0123456789abcdef"
CALLER = Caller(
    practice_id="0191b7a2-0000-7000-8000-000000000001",
    shard="a/shard_0123456789abcdef0123",
    user_id="0191b7a2-0000-7000-8000-000000000002",
    session_id="0191b7a2-0000-7000-8000-000000000003",
    role="owner",
    client_address="192.0.2.7",
)


@pytest.fixture
def headers():
    return list(ContextSigner([KEY]).headers(CALLER))


def verify(headers, keys=(KEY,)):
    return ContextVerifier(keys).verify(headers)


def test_a_signed_caller_is_read_as_it_was_signed(headers):
    assert verify(headers) == CALLER


def test_headers_that_are_not_of_the_context_are_ignored(headers):
    assert verify([*headers, (b"accept", b"*/*"), (b"accept", b"text/html")]) == CALLER


@pytest.mark.parametrize("position", range(8))
def test_every_signed_header_is_covered(headers, position):
    name, value = headers[position]
    headers[position] = (name, value + b"0")
    with pytest.raises(SignatureError):
        verify(headers)


@pytest.mark.parametrize("position", range(8))
def test_a_missing_header_is_refused(headers, position):
    del headers[position]
    with pytest.raises(SignatureError):
        verify(headers)


@pytest.mark.parametrize("position", range(8))
def test_a_repeated_header_is_refused_even_with_the_same_value(headers, position):
    with pytest.raises(SignatureError):
        verify([*headers, headers[position]])


def test_values_can_not_slide_from_one_header_into_the_next(headers):
    signature = headers[-1]
    shifted = ContextSigner([KEY]).headers(replace(CALLER, practice_id="", shard=CALLER.practice_id))
    with pytest.raises(SignatureError):
        verify([*shifted[:-1], signature])


@pytest.mark.parametrize(
    "signature", [b"", b".", b"x.y", b"99999999999999.00", "²".encode("latin-1") + b".00", b"-1.00"]
)
def test_a_malformed_signature_is_refused(headers, signature):
    headers[-1] = (SIGNATURE_HEADER, signature)
    with pytest.raises(SignatureError):
        verify(headers)


def test_another_key_is_refused_and_an_older_key_of_the_list_accepted(headers):
    with pytest.raises(SignatureError):
        verify(headers, keys=(OTHER_KEY,))
    assert verify(headers, keys=(OTHER_KEY, KEY)) == CALLER


@pytest.mark.parametrize(("shift_s", "accepted"), [(MAX_AGE_S - 1, True), (MAX_AGE_S + 1, False)])
def test_age_is_checked_also_for_what_was_verified_before(headers, monkeypatch, shift_s, accepted):
    verifier = ContextVerifier([KEY])
    signed_at = int(headers[-1][1].partition(b".")[0])
    assert verifier.verify(headers) == CALLER
    monkeypatch.setattr(time, "time", lambda: signed_at + shift_s)
    if accepted:
        assert verifier.verify(headers) == CALLER
    else:
        with pytest.raises(SignatureError):
            verifier.verify(headers)


@pytest.mark.parametrize(("shift_s", "accepted"), [(MAX_AHEAD_S, True), (MAX_AHEAD_S + 1, False)])
def test_a_signature_from_the_future_is_refused(monkeypatch, shift_s, accepted):
    now = int(time.time())
    monkeypatch.setattr(time, "time", lambda: now + shift_s)
    headers = ContextSigner([KEY]).headers(CALLER)
    monkeypatch.setattr(time, "time", lambda: now)
    if accepted:
        assert verify(headers) == CALLER
    else:
        with pytest.raises(SignatureError):
            verify(headers)


def test_a_signature_is_used_again_for_the_same_caller_only_while_fresh(monkeypatch):
    signer, now = ContextSigner([KEY]), time.time()
    monkeypatch.setattr(time, "time", lambda: now)
    first = signer.headers(CALLER)
    assert signer.headers(CALLER) is first
    assert signer.headers(replace(CALLER, role="auditor")) != first
    monkeypatch.setattr(time, "time", lambda: now + 20)
    assert signer.headers(CALLER)[-1] != first[-1]


@pytest.mark.parametrize("value", ["a\nb", "a\rb", "a\r\nX-Role: admin"])
def test_a_line_break_is_never_signed(value):
    with pytest.raises(SignatureError):
        ContextSigner([KEY]).headers(replace(CALLER, scope=value))
