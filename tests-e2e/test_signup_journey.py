"""The main job: a practice signs up, gets a database and a mail, logs in and works with its patients."""

import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx
import jwt
from e2e_api import LOGIN, PATIENTS, PRACTICES, SIGNUP, Api, Practice, assert_success, new_sign_up, patient_path
from e2e_stack import EmbeddedStack, Mailbox, column, rows, with_database

MAIL_TIMEOUT_S = 10
PARALLEL_SIGN_UPS = 50


def _database_of(stack: EmbeddedStack, practice_id: str) -> str:
    listed = stack.command_json("practices", "list")
    [database] = [one["database"] for one in listed if one["id"] == practice_id]
    return str(database)


def test_the_readmes_examples_work_as_they_are_printed(api: Api) -> None:
    """The original's README, call by call."""
    printed = {"name": "ABC Practice", "email": "abc@example.com", "password": "securepassword"}
    joined = assert_success(api.post(SIGNUP, json=printed), 201, "Practice registered successfully!", "result")
    assert {"name": "ABC Practice", "email": "abc@example.com"}.items() <= joined["result"].items()
    assert "password" not in joined["result"]

    entered = api.post(LOGIN, json={"email": "abc@example.com", "password": "securepassword"})
    session = assert_success(entered, 200, "Login successful!", "token", "refresh_token", "expires_in")
    token = session["token"]

    listed = assert_success(api.get(PRACTICES, token=token), 200, "Practices fetched successfully!", "result")
    [itself] = listed["result"]["data"]
    assert {**joined["result"]}.items() <= itself.items()

    patient = {"name": "Patient A", "age": 30, "mobile": "9876543210"}
    added = api.post(PATIENTS, token=token, json=patient)
    created = assert_success(added, 201, "Patient added successfully!", "result")["result"]
    assert {**patient, "is_deleted": 0}.items() <= created.items()

    shown = assert_success(api.get(PATIENTS, token=token), 200, "Patients fetched successfully!", "result")
    assert shown["result"]["data"] == [created]

    removed = api.call("DELETE", patient_path(created["id"]), token=token)
    assert_success(removed, 200, "Patient deleted successfully!")
    assert api.get(PATIENTS, token=token).json()["result"]["data"] == []


def test_a_practice_gets_a_database_and_a_login_role_of_its_own(
    stack: EmbeddedStack, practice: Practice, superuser_dsn: str
) -> None:
    database = _database_of(stack, practice.id)
    assert database.startswith("shard_")
    assert practice.name.lower() not in database
    [(owner_is_role, may_connect)] = rows(
        superuser_dsn,
        "SELECT pg_get_userbyid(datdba) = datname, datallowconn FROM pg_database WHERE datname = %s",
        database,
    )
    assert (owner_is_role, may_connect) == (False, True)
    assert rows(superuser_dsn, "SELECT rolcanlogin, rolsuper FROM pg_roles WHERE rolname = %s", database) == [
        (True, False)
    ]
    practice.new_patient(name="Only here")
    stored = column(with_database(superuser_dsn, database), "SELECT name FROM patients")
    assert stored.count("Only here") == 1


def test_the_central_practices_table_keeps_the_originals_columns(
    stack: EmbeddedStack, practice: Practice, superuser_dsn: str, central_database: str
) -> None:
    """The original's columns: id, name, email, password, database_name, created_at, updated_at."""
    [(name, email, password, database, created, updated)] = rows(
        with_database(superuser_dsn, central_database),
        "SELECT name, email, password, database_name, created_at, updated_at FROM auth.practices WHERE id = %s",
        practice.id,
    )
    assert (name, email, database) == (practice.name, practice.email, _database_of(stack, practice.id))
    assert practice.password not in password
    assert created.tzinfo is not None
    assert updated >= created


def test_the_welcome_mail_arrives_as_text_and_html_with_the_practices_name(
    mailbox: Mailbox, new_practice: Callable[..., Practice]
) -> None:
    joined = new_practice(name="Dr. Zoë & <Söhne>")
    message = mailbox.wait_for(joined.email, timeout_s=MAIL_TIMEOUT_S)
    text, html = message.get_body(("plain",)), message.get_body(("html",))
    assert text is not None
    assert html is not None
    assert "Dr. Zoë & <Söhne>" in text.get_content()
    assert "Dr. Zoë &amp; &lt;Söhne&gt;" in html.get_content()
    assert "<Söhne>" not in html.get_content()
    assert message["Message-ID"]
    assert message["Subject"]
    assert message["From"]
    whole = message.as_string()
    assert joined.password not in whole
    assert joined.token not in whole
    assert len(mailbox.sent_to(joined.email)) == 1


def _signed_up(api: Api) -> httpx.Response:
    """What was refused for lack of time (503) left nothing behind, so a client tries again."""
    body = new_sign_up()
    for _ in range(10):
        answer = api.post(SIGNUP, json=body)
        if answer.status_code != 503:
            break
        time.sleep(int(answer.headers["Retry-After"]))
    return answer


def test_fifty_parallel_sign_ups_all_succeed(api: Api, stack: EmbeddedStack, superuser_dsn: str) -> None:
    """The template is never in use, concurrency is bounded; every one gets its own database and role."""
    with ThreadPoolExecutor(PARALLEL_SIGN_UPS) as pool:
        answers = list(pool.map(lambda _: _signed_up(api), range(PARALLEL_SIGN_UPS)))
    assert [answer.status_code for answer in answers] == [201] * PARALLEL_SIGN_UPS
    ids = {answer.json()["result"]["id"] for answer in answers}
    listed = {one["id"]: one for one in stack.command_json("practices", "list")}
    assert {listed[one]["status"] for one in ids} == {"active"}
    databases = {listed[one]["database"] for one in ids}
    assert len(databases) == PARALLEL_SIGN_UPS
    assert databases <= set(column(superuser_dsn, "SELECT datname FROM pg_database WHERE datallowconn"))
    assert databases <= set(column(superuser_dsn, "SELECT rolname FROM pg_roles WHERE rolcanlogin"))


def test_parallel_sign_ups_with_one_email_make_one_practice(api: Api, stack: EmbeddedStack) -> None:
    email = "only-one@example.com"
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda n: api.sign_up(email=email if n % 2 else email.upper()), range(8)))
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 7
    listed = [one for one in stack.command_json("practices", "list") if one["email"].lower() == email]
    assert len(listed) == 1


def test_ids_are_uuids_of_version_seven(practice: Practice) -> None:
    assert uuid.UUID(practice.id).version == 7
    assert uuid.UUID(practice.new_patient()["id"]).version == 7


def test_an_access_token_names_practice_person_role_and_session_but_no_database(
    api: Api, stack: EmbeddedStack, practice: Practice
) -> None:
    """Checked with the public keys as any client could."""
    keys = jwt.PyJWKSet.from_dict(api.get("/.well-known/jwks.json").json())
    header = jwt.get_unverified_header(practice.token)
    claims = jwt.decode(practice.token, keys[header["kid"]].key, algorithms=["EdDSA"], options={"verify_aud": False})
    assert header["typ"] == "at+jwt"
    assert {"iss", "aud", "sub", "exp", "iat", "jti"} <= set(claims)
    assert practice.id in claims.values()
    assert "owner" in claims.values()
    assert practice.id != claims["sub"]
    assert _database_of(stack, practice.id) not in str(claims)
