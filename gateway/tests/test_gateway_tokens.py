"""Nobody gets in by a token that auth-service didn't make for this API, now (RFC 8725). Each refusal is a plain 401."""

import asyncio
import base64
import contextlib
import hashlib
import hmac
import json
import socket
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from gateway_stand import PERSON, PRACTICE, Signer, Stand, base64url, eventually

from gateway.main import ASKING_CONNECTIONS
from shared.api_keys import digest_of, new_key

PATIENTS = "/api/v1/patients"
STRANGER = Signer()
NOW = int(time.time())
OTHER_PRACTICE = "0199cccc-0000-7000-8000-000000000009"


def _forged(signer: Signer, header: dict[str, Any], payload: Any = None, signature: bytes | None = None) -> str:
    """A compact token with exactly this header, signed properly unless a signature is given."""
    claims = jwt.decode(signer.token(), options={"verify_signature": False}) if payload is None else payload
    parts = [base64url(part if isinstance(part, bytes) else json.dumps(part).encode()) for part in (header, claims)]
    signed = ".".join(parts).encode()
    return f"{signed.decode()}.{base64url(signer.private.sign(signed) if signature is None else signature)}"


def _hmac_with(signer: Signer, key: bytes, alg: str = "HS256") -> str:
    """The classic confusion: an HMAC keyed with the public key."""
    header = {"alg": alg, "typ": "at+jwt", "kid": signer.kid}
    token = _forged(signer, header, signature=b"")
    digest = {"HS256": hashlib.sha256, "HS384": hashlib.sha384, "HS512": hashlib.sha512}[alg]
    return token + base64url(hmac.new(key, token.rstrip(".").encode(), digest).digest())


def _good_header(signer: Signer, **more: Any) -> dict[str, Any]:
    return {"alg": "EdDSA", "typ": "at+jwt", "kid": signer.kid, **more}


def _corpus(signer: Signer) -> dict[str, str]:
    good = signer.token()
    head, payload, signature = good.split(".")
    pem = signer.private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    claims = jwt.decode(good, options={"verify_signature": False})
    rsa_key, ec_key = rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP256R1())
    cases = {
        "empty signature": f"{head}.{payload}.",
        "no signature": f"{head}.{payload}",
        "only a header": head,
        "four segments": f"{good}.{signature}",
        "five segments (JWE)": f"{head}.{payload}.{signature}.{head}.{payload}",
        "padded segments": f"{head}==.{payload}==.{signature}==",
        "a space inside": f"{head}. {payload}.{signature}",
        "a trailing comma": f"{good},",
        "a doubled token": f"{good} {good}",
        "base64 instead of base64url": good.replace("-", "+").replace("_", "/") + "/",
        "flipped signature bit": _flipped(good),
        "swapped payload": f"{head}.{signer.token(practice=OTHER_PRACTICE).split('.')[1]}.{signature}",
        "a stranger's key with our kid": STRANGER.token({"kid": signer.kid}),
        "a stranger's key": STRANGER.token({"kid": "ffffffffffffffff"}),
        "header is no JSON": _forged(signer, b"{nope"),
        "header is a list": _forged(signer, ["EdDSA"]),
        "header is empty": _forged(signer, {}),
        "header is no UTF-8": _forged(signer, b'{"alg":"\xff\xfe"}'),
        "deeply nested header": _forged(signer, b'{"alg":' + b"[" * 200 + b"]" * 200 + b"}"),
        "payload is no JSON": _forged(signer, _good_header(signer), b"nope"),
        "payload is a list": _forged(signer, _good_header(signer), [1]),
        "payload is null": _forged(signer, _good_header(signer), b"null"),
        "payload is no UTF-8": _forged(signer, _good_header(signer), b'{"sub":"\xff"}'),
        "deeply nested payload": _forged(signer, _good_header(signer), b'{"a":' + b"[" * 1000 + b"]" * 1000 + b"}"),
        "zip bomb header": _forged(signer, _good_header(signer, zip="DEF")),
        "RS256": jwt.encode(claims, rsa_key, algorithm="RS256", headers={"typ": "at+jwt", "kid": signer.kid}),
        "ES256": jwt.encode(claims, ec_key, algorithm="ES256", headers={"typ": "at+jwt", "kid": signer.kid}),
        "PS256": jwt.encode(claims, rsa_key, algorithm="PS256", headers={"typ": "at+jwt", "kid": signer.kid}),
        "4 KB and more": signer.token(extra="x" * 4096),
        "50 KB": "a" * 50_000,
    }
    for alg in (
        "none",
        "None",
        "NONE",
        "nOnE",
        "",
        "HS256",
        "eddsa",
        "EdDSA ",
        "Ed25519",
        "ES256K",
        None,
        1,
        ["EdDSA"],
    ):
        header = {**_good_header(signer), "alg": alg}
        cases[f"alg {alg!r}, signed"] = _forged(signer, header)
        cases[f"alg {alg!r}, unsigned"] = _forged(signer, header, signature=b"")
    for alg in ("HS256", "HS384", "HS512"):
        cases[f"{alg} with the public key's bytes"] = _hmac_with(signer, signer.public_bytes, alg)
        cases[f"{alg} with the public key's PEM"] = _hmac_with(signer, pem, alg)
    for typ in ("JWT", "jwt", "at+JWT ", "rt+jwt", "refresh", "application/at+jwt", "id_token", "", None, 7):
        cases[f"typ {typ!r}"] = _forged(signer, {**_good_header(signer), "typ": typ})
    for kid in (
        "../../dev/null",
        "' OR 1=1 --",
        "/etc/passwd",
        "http://127.0.0.1:1/k",
        "a\u0000b",
        "",
        None,
        5,
        [],
        {},
        "x" * 500,
    ):
        cases[f"kid {str(kid)[:30]!r}"] = _forged(signer, {**_good_header(signer), "kid": kid})
    for missing in ("alg", "typ", "kid"):
        cases[f"no {missing}"] = _forged(signer, {k: v for k, v in _good_header(signer).items() if k != missing})
    attacker = STRANGER.jwk()
    for name, value in {
        "crit": ["exp"],
        "b64": False,
        "jku": "http://127.0.0.1:1/jwks",
        "jwk": attacker,
        "x5u": "http://127.0.0.1:1/cert",
        "x5c": ["MIIB"],
        "x5t": "aa",
        "cty": "JWT",
        "enc": "A256GCM",
        "nonce": "1",
    }.items():
        cases[f"header member {name}"] = _forged(signer, _good_header(signer, **{name: value}))
        cases[f"header member {name}, a stranger's key"] = _forged(STRANGER, _good_header(signer, **{name: value}))
    for name in ("iss", "aud", "sub", "exp", "iat", "jti", "sid", "practice", "role"):
        cases[f"no {name}"] = signer.token(**{name: ...})
    for name, values in _WRONG_CLAIMS.items():
        for value in values:
            cases[f"{name} {value!r}"[:60]] = _forged(signer, _good_header(signer), {**claims, name: value})
    return cases


_WRONG_CLAIMS: dict[str, list[Any]] = {
    "iss": ["evil", "", None, ["gowebbo"], "GOWEBBO"],
    "aud": ["other-api", "", None, ["gowebbo-api", "x"], [], "gowebbo"],
    "exp": [NOW - 1, 0, -1, "soon", None, str(NOW + 600), True, [], 1e400],
    "iat": [NOW + 3600, "now", None, True],
    "nbf": [NOW + 3600, "later"],
    "sub": ["", "admin", 1, None, "a\nX-Role: admin", "ü"],
    "practice": ["", "*", "../../internal", PRACTICE.upper(), f"{PRACTICE} ", [PRACTICE], None],
    "sid": ["", 0, None, "x"],
    "role": ["admin", "anonymous", "service:gateway", "service:", None, ["owner"], "owner\r\nX-Scope: all"],
    "jti": [None, 1, "a\u0000"],
}


def _flipped(token: str) -> str:
    head, payload, signature = token.split(".")
    raw = bytearray(base64.urlsafe_b64decode(signature + "=="))
    raw[10] ^= 1
    return f"{head}.{payload}.{base64url(bytes(raw))}"


def test_the_corpus_is_refused_with_401_and_no_token_is_followed_anywhere(stand: Stand) -> None:
    """All of it, one after the other, on the same gateway; a good token works before and after."""
    assert stand.client.get(PATIENTS, headers=stand.bearer()).status_code == 200
    stand.patient.calls.clear()
    corpus = _corpus(stand.signer)
    assert len(corpus) >= 60
    let_in = {}
    for name, token in corpus.items():
        answer = stand.client.get(PATIENTS, headers={"Authorization": b"Bearer " + token.encode("latin-1", "replace")})
        challenge = answer.headers.get("www-authenticate", "")
        if answer.status_code != 401 or 'error="invalid_token"' not in challenge or not challenge.startswith("Bearer "):
            let_in[name] = (answer.status_code, challenge)
    assert let_in == {}
    assert stand.patient.calls == []
    assert stand.auth.seen.count("/.well-known/jwks.json") <= 1
    assert stand.client.get(PATIENTS, headers=stand.bearer()).status_code == 200


@pytest.mark.parametrize(
    "value",
    ["", "Bearer", "Bearer ", "Token abc", "Digest username=x", "Basic YTpi", "bearer:abc", "null", "Bearer\tabc"],
)
def test_without_a_token_the_challenge_names_no_error(stand: Stand, value: str) -> None:
    """RFC 6750, 3.1: a request without authentication information gets no error code."""
    request = f"GET {PATIENTS} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: {value}\r\n\r\n"
    answer = stand.raw(request.encode())
    assert answer.startswith(b"HTTP/1.1 401 ")
    assert b'\r\nwww-authenticate: Bearer realm="gowebbo"\r\n' in answer


def test_two_authorization_headers_are_none(stand: Stand) -> None:
    good = stand.bearer()["Authorization"]
    answer = stand.client.get(PATIENTS, headers=[("Authorization", good), ("Authorization", good)])
    assert answer.status_code == 401
    assert stand.patient.calls == []


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "Bearer "])
def test_the_scheme_is_case_insensitive(stand: Stand, scheme: str) -> None:
    answer = stand.client.get(PATIENTS, headers={"Authorization": f"{scheme} {stand.signer.token()}"})
    assert answer.status_code == 200


def test_a_token_of_one_megabyte_is_431(stand: Stand) -> None:
    answer = stand.raw(
        b"GET /api/v1/patients HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + b"a" * 1_000_000 + b"\r\n\r\n"
    )
    assert answer.startswith(b"HTTP/1.1 431 ")


def test_a_token_that_was_good_is_refused_once_it_has_expired(stand: Stand) -> None:
    headers = stand.bearer(exp=int(time.time()) + 2)
    assert stand.client.get(PATIENTS, headers=headers).status_code == 200
    answer = eventually(lambda: _refused(stand, headers))
    assert "expired" in answer.json()["detail"]


def test_a_revoked_session_is_refused_within_moments_and_others_are_not(stand: Stand) -> None:
    session = "0199dddd-0000-7000-8000-000000000001"
    headers = stand.bearer(sid=session)
    assert stand.client.get(PATIENTS, headers=headers).status_code == 200
    stand.revoked.append(session)
    answer = eventually(lambda: _refused(stand, headers), within_s=5)
    assert 'error="invalid_token"' in answer.headers["www-authenticate"]
    assert stand.client.get(PATIENTS, headers=stand.bearer()).status_code == 200


def test_questions_that_hang_do_not_delay_a_revocation(make_stand, monkeypatch: pytest.MonkeyPatch) -> None:
    """Anybody can have made-up keys asked for; whoever was logged out must be out within seconds all the same."""
    stand = make_stand()
    monkeypatch.setattr("gateway.api_keys.ASK_TIMEOUT_S", 60)

    async def hang(_):
        await asyncio.sleep(60)

    keys = [new_key() for _ in range(ASKING_CONNECTIONS)]
    for key in keys:
        stand.auth.answers["GET", f"/internal/api-keys/{digest_of(key).hex()}"] = hang
    with contextlib.ExitStack() as asking:
        for key in keys:
            connection = asking.enter_context(socket.create_connection(("127.0.0.1", stand.port)))
            connection.sendall(f"GET {PATIENTS} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n\r\n".encode())
        eventually(lambda: sum("/api-keys/" in path for path in stand.auth.seen) == len(keys))
        headers = stand.bearer(sid=str(uuid.uuid4()))
        assert stand.client.get(PATIENTS, headers=headers).status_code == 200
        stand.revoked.append(jwt.decode(headers["Authorization"][7:], options={"verify_signature": False})["sid"])
        assert eventually(lambda: _refused(stand, headers))


def test_sessions_revoked_before_the_start_are_known_when_it_is_ready(make_stand) -> None:
    """Loaded before /readyz is 200, which the stand waits for."""
    session = "0199dddd-0000-7000-8000-000000000002"

    stand = make_stand(revoked_at_start=[session])
    assert stand.client.get(PATIENTS, headers=stand.bearer(sid=session)).status_code == 401
    assert stand.client.get(PATIENTS, headers=stand.bearer()).status_code == 200


def test_a_new_key_is_fetched_when_its_first_token_comes_and_rotation_refuses_nobody(make_stand) -> None:
    stand = make_stand()
    newer = Signer("bbbbbbbbbbbbbbbb")
    eventually(lambda: stand.auth.seen.count("/.well-known/jwks.json"))
    stand.signers = [newer, stand.signer]
    old, new = stand.bearer(), {"Authorization": f"Bearer {newer.token()}"}
    with ThreadPoolExecutor(8) as pool:
        statuses = set(pool.map(lambda n: stand.client.get(PATIENTS, headers=(old, new)[n % 2]).status_code, range(80)))
    assert statuses == {200}


def test_a_flood_of_unknown_keys_causes_one_fetch(make_stand) -> None:
    stand = make_stand()
    before = stand.auth.seen.count("/.well-known/jwks.json")
    tokens = [STRANGER.token({"kid": f"{number:016x}"}) for number in range(100)]
    with ThreadPoolExecutor(8) as pool:
        statuses = set(pool.map(lambda t: _status(stand, t), tokens))
    assert statuses == {401}
    assert stand.auth.seen.count("/.well-known/jwks.json") - before == 1


def test_a_new_key_is_found_although_a_flood_of_unknown_ones_has_used_up_the_fetches(make_stand) -> None:
    stand = make_stand()
    newer = Signer("bbbbbbbbbbbbbbbb")
    assert _status(stand, STRANGER.token({"kid": "f" * 16})) == 401
    stand.signers = [newer, stand.signer]
    eventually(lambda: newer.kid in stand.keys._keys, within_s=5)
    assert _status(stand, newer.token()) == 200
    assert _status(stand, stand.signer.token()) == 200


def test_the_admins_token_is_for_the_admins_routes_only(make_stand) -> None:
    stand = make_stand()
    session = "0199dddd-0000-7000-8000-0000000000ad"
    claims = {"aud": "gowebbo-admin", "sub": "admin", "role": "admin", "practice": "", "sid": session}
    admin = {"Authorization": f"Bearer {stand.signer.token(**claims)}"}
    for path in ("/api/v1/practices", "/api/v1/admin/practices", "/api/v1/audit"):
        stand.auth.calls.clear()
        assert stand.client.get(path, headers=admin).status_code != 401
        caller = stand.auth.calls[-1].caller
        assert (caller.role, caller.user_id, caller.session_id, caller.practice_id) == ("admin", "admin", session, "")
    for path in (PATIENTS, "/api/v1/staff", "/api/v1/auth/sessions"):
        answer = stand.client.get(path, headers=admin)
        assert (answer.status_code, answer.json()["type"]) == (401, "/errors/invalid-token")
    refused = stand.client.get("/api/v1/admin/practices", headers=stand.bearer())
    assert refused.status_code == 401
    assert refused.headers["www-authenticate"].startswith("Basic ")
    for wrong in ({"role": "owner"}, {"sub": PERSON}, {"sid": "x"}, {"aud": "gowebbo-api"}, {"aud": ["gowebbo-admin"]}):
        forged = {"Authorization": f"Bearer {stand.signer.token(**claims | wrong)}"}
        assert stand.client.get("/api/v1/admin/practices", headers=forged).status_code == 401, wrong
    stand.revoked.append(session)
    eventually(lambda: stand.client.get("/api/v1/practices", headers=admin).status_code == 401, within_s=5)


def test_an_api_key_is_for_a_practices_routes_only(stand: Stand) -> None:
    key = new_key()
    for path in (PATIENTS, "/api/v1/admin/practices"):
        answer = stand.client.get(path, headers={"Authorization": f"Bearer {key}"})
        assert answer.status_code in {401, 503}
    assert stand.client.get(PATIENTS, headers={"Authorization": "Bearer gwk_nonsense"}).status_code == 401


def test_a_key_that_was_withdrawn_opens_nothing_any_more(make_stand) -> None:
    """Also not for a token that was verified before."""
    stand = make_stand()
    newer = Signer("bbbbbbbbbbbbbbbb")
    assert _status(stand, token := stand.signer.token()) == 200
    stand.signers = [newer]
    assert _status(stand, newer.token()) == 200
    assert _status(stand, token) == 401


def _status(stand: Stand, token: str) -> int:
    return stand.client.get(PATIENTS, headers={"Authorization": f"Bearer {token}"}).status_code


def _refused(stand: Stand, headers: dict[str, str]):
    answer = stand.client.get(PATIENTS, headers=headers)
    return answer if answer.status_code == 401 else None


def test_a_known_caller_is_signed_as_each_call_and_token_say(make_stand) -> None:
    """What was remembered of a session serves only calls that are the same in everything that is signed."""
    stand = make_stand(trusted_proxies="127.0.0.0/8")
    tokens = [stand.bearer(), stand.bearer(role="clinician"), stand.bearer(sub="0199aaaa-0000-7000-8000-0000000000aa")]
    asked = [(token, address) for token in tokens for address in ("192.0.2.1", "192.0.2.2")] * 2
    for token, address in asked:
        assert stand.client.get(PATIENTS, headers={**token, "X-Forwarded-For": address}).status_code == 200
    signed = [(call.caller.role, call.caller.user_id, call.caller.client_address) for call in stand.patient.calls]
    whose = [("owner", PERSON), ("clinician", PERSON), ("owner", "0199aaaa-0000-7000-8000-0000000000aa")]
    assert signed == [(*person, address) for person in whose for address in ("192.0.2.1", "192.0.2.2")] * 2
