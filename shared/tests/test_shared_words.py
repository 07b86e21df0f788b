"""Claims, events, cursors, ids and roles: what one service writes, another must read."""

import uuid

import pytest

from shared.claims import AccessClaims, ClaimsError
from shared.context import Caller
from shared.cursor import decode_cursor, encode_cursor
from shared.errors import MalformedCursorError
from shared.events import Event, EventError
from shared.ids import new_id, request_id_of
from shared.roles import ADMIN, API_KEY, API_KEY_PERMISSIONS, PERMISSIONS, STAFF_ROLES, Permission, allows

CLAIMS = AccessClaims(
    person_id="p", practice_id="q", session_id="s", role="owner", token_id="j", issued_at=1, expires_at=2
)
EVENT = Event(id="1", type="practice.registered", practice_id="2", occurred_at="2026-01-01T00:00:00Z", payload={"a": 1})


def test_claims_survive_the_journey():
    assert AccessClaims.from_payload(CLAIMS.payload()) == CLAIMS


@pytest.mark.parametrize(
    "change", [{"sub": None}, {"sub": 7}, {"role": "a\nb"}, {"sid": "é"}, {"exp": "2"}, {"exp": True}]
)
def test_claims_of_the_wrong_type_are_refused(change):
    with pytest.raises(ClaimsError):
        AccessClaims.from_payload({**CLAIMS.payload(), **change})


def test_an_event_survives_the_stream():
    fields = {name.encode(): value for name, value in EVENT.to_fields().items()}
    assert Event.from_fields(fields) == EVENT


@pytest.mark.parametrize("value", [b"", b"{", b"[]", b'{"id": 1}', b'"text"', b"null"])
def test_what_is_no_event_is_refused(value):
    with pytest.raises(EventError):
        Event.from_fields({b"event": value})
    with pytest.raises(EventError):
        Event.from_fields({b"other": value})


def test_an_event_with_a_wrong_part_is_refused():
    with pytest.raises(EventError):
        Event.from_dict({"id": 1, "type": "t", "practice_id": "p", "occurred_at": "o"})


def test_a_cursor_survives_the_journey():
    assert decode_cursor(encode_cursor("2026", "ü/+?"), parts=2) == ["2026", "ü/+?"]
    with pytest.raises(MalformedCursorError):
        decode_cursor(encode_cursor("one"), parts=2)


def test_ids_are_version_7_and_sort_by_time():
    ids = [new_id() for _ in range(1000)]
    assert ids == sorted(ids)
    assert {one.version for one in ids} == {7}
    assert all(isinstance(one, uuid.UUID) for one in ids)


def test_request_ids_are_kept_only_when_valid():
    assert request_id_of(b"abcdefgh") == b"abcdefgh"
    assert request_id_of(b"short") != b"short"
    assert request_id_of(None) != request_id_of(None)


PATIENTS = {Permission.PATIENTS_READ, Permission.PATIENTS_WRITE, Permission.PATIENTS_DELETE}
OWN = {Permission.PRACTICE_READ, Permission.ACCOUNT_MANAGE}


@pytest.mark.parametrize(
    ("role", "expected"),
    [
        ("admin", {Permission.PLATFORM_READ, Permission.PLATFORM_OPERATE}),
        ("owner", set(Permission) - {Permission.PLATFORM_READ, Permission.PLATFORM_OPERATE}),
        ("clinician", PATIENTS | OWN),
        ("receptionist", {Permission.PATIENTS_READ, Permission.PATIENTS_WRITE} | OWN),
        ("auditor", {Permission.PATIENTS_READ, Permission.AUDIT_READ} | OWN),
        ("api-key", set()),
        ("service:gateway", set()),
        ("anonymous", set()),
        ("Owner", set()),
        (" owner", set()),
        ("", set()),
    ],
)
def test_what_each_role_may_do(role, expected):
    assert {permission for permission in Permission if allows(Caller(role=role), permission)} == expected


def test_every_role_of_the_table_is_decided_here():
    assert set(PERMISSIONS) == {ADMIN, API_KEY, *STAFF_ROLES}


def test_a_scope_takes_from_a_role_and_never_adds_to_it():
    scope = "patients:read audit:read account"
    assert {one for one in Permission if allows(Caller(role="clinician", scope=scope), one)} == {"patients:read"}
    assert {one for one in Permission if allows(Caller(role="api-key", scope=scope), one)} == {
        "patients:read",
        "audit:read",
    }
    everything = " ".join(Permission)
    assert {one for one in Permission if allows(Caller(role="api-key", scope=everything), one)} == API_KEY_PERMISSIONS
