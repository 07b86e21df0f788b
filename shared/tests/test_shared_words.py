"""Claims, events, cursors, ids and roles: what one service writes, another must read."""

import uuid

import pytest

from shared.claims import AccessClaims, ClaimsError
from shared.cursor import decode_cursor, encode_cursor
from shared.errors import MalformedCursorError
from shared.events import Event, EventError
from shared.ids import new_id, request_id_of
from shared.roles import ADMIN, OWNER, PERMISSIONS, Permission, allows

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


@pytest.mark.parametrize("permission", Permission)
def test_every_role_is_decided_for_every_permission(permission):
    assert all(isinstance(allows(role, permission), bool) for role in PERMISSIONS)
    assert not allows("unknown", permission)


def test_the_platform_admin_never_sees_a_patient():
    assert not any(allows(ADMIN, permission) for permission in Permission if permission.startswith("patients:"))
    assert all(allows(OWNER, permission) for permission in Permission if permission.startswith("patients:"))


def test_roles_are_compared_whole():
    assert not allows("Owner", Permission.PATIENTS_READ)
    assert not allows(" owner", Permission.PATIENTS_READ)
