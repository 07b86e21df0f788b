"""Nothing in a log or an error shows a password, a token, SQL or a patient's data."""

import re
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from e2e_api import LOGIN, PATIENTS, REFRESH, SIGNUP, Api, Practice, new_sign_up, patient_path
from e2e_stack import EmbeddedStack, psql, with_database

PASSWORD = "MarkPassword-7f3a"
WRONG_PASSWORD = "MarkWrong-7f3a"
NAME = "MarkPatient Zoe 7f3a"
MOBILE = "0123 777 7777 31"
SQL = re.compile(
    r"\b(SELECT\s.+\sFROM|INSERT\s+INTO|UPDATE\s+\S+\s+SET|DELETE\s+FROM|CREATE\s+(ROLE|DATABASE)|ALTER\s+ROLE)\b"
)
NOT_LOGS = ("postgres", "redis", "mailbox", "secrets.json")
"""Where data and secrets belong: the databases' folders, the caught mail, the file of secrets."""


def _log_files(stack: EmbeddedStack) -> dict[Path, str]:
    logs = [
        path
        for path in stack.home.rglob("*")
        if path.is_file() and not path.relative_to(stack.home).parts[0].startswith(NOT_LOGS)
    ]
    return {path: path.read_text(errors="replace") for path in [*logs, stack.output]}


def _journey(api: Api, joined: Practice) -> list[httpx.Response]:
    """Every kind of mistake, with values that must not come back; the errors it got."""
    headers = {"Content-Type": "application/json"}
    patient = joined.new_patient(name=NAME, mobile=MOBILE)
    path = patient_path(patient["id"])
    answers = [
        api.log_in(joined.email, WRONG_PASSWORD),
        api.log_in(f"{NAME}@x", PASSWORD),
        api.post(LOGIN, content=f'{{"password": "{PASSWORD}"'.encode(), headers=headers),
        api.post(SIGNUP, json=new_sign_up() | {"password": PASSWORD, "extra": NAME}),
        api.post(SIGNUP, json=new_sign_up() | {"email": joined.email, "password": PASSWORD}),
        api.post(SIGNUP, json={"name": [PASSWORD], "email": {"a": PASSWORD}, "password": [PASSWORD]}),
        api.post(SIGNUP, json={"unknown": {"deep": [PASSWORD]}}),
        joined.add(name=NAME, mobile=f"{MOBILE} no phone"),
        joined.add(name=[NAME], age=MOBILE),
        joined.add(name=NAME + "\u0000", mobile=MOBILE),
        joined.call("POST", PATIENTS, content=f'{{"name": "{NAME}", "mobile": "{MOBILE}"'.encode(), headers=headers),
        joined.call("PUT", path, json={"name": NAME, "age": 10**30, "mobile": MOBILE}),
        joined.call("PATCH", path, json={"name": None, "mobile": NAME}),
        joined.call("POST", PATIENTS, content=f"{NAME}{MOBILE}".encode(), headers={"Content-Type": "text/plain"}),
        joined.get(patient_path(NAME)),
        joined.get(PATIENTS, params={"cursor": NAME}),
        joined.get(PATIENTS, params={"limit": MOBILE}),
        joined.get(f"/nothing/{joined.refresh_token}"),
        api.get(PATIENTS, token=joined.token[:-6] + "AAAAAA"),
        api.get(PATIENTS, params={"access_token": joined.token}),
        api.post(REFRESH, json={"refresh_token": joined.token}),
        api.post(REFRESH, json={"refresh_token": joined.refresh_token, "more": PASSWORD}),
        joined.call("DELETE", PATIENTS),
    ]
    assert api.post(REFRESH, json={"refresh_token": joined.refresh_token}).status_code == 200
    assert all(400 <= answer.status_code < 500 for answer in answers), [answer.status_code for answer in answers]
    return answers


@pytest.fixture(scope="module")
def marked(new_practice: Callable[..., Practice]) -> Practice:
    """A practice whose values can be found again."""
    return new_practice(password=PASSWORD)


def test_no_log_and_no_error_shows_what_is_secret(api: Api, stack: EmbeddedStack, marked: Practice) -> None:
    errors = _journey(api, marked)
    stack.mailbox.wait_for(marked.email)
    secrets = {
        "the password": PASSWORD,
        "a wrong password": WRONG_PASSWORD,
        "the patient's name": NAME,
        "the patient's mobile": MOBILE,
        "the access token": marked.token,
        "the token's signature": marked.token.rpartition(".")[2],
        "the refresh token": marked.refresh_token,
        "the gateway's secret": stack.environment["GATEWAY_SECRET"],
        "the shards' secret": stack.environment["SHARD_SECRET"],
    }
    for answer in errors:
        for what, value in secrets.items():
            assert value not in answer.text, (what, answer.request.url.path, answer.text)
            assert value not in str(answer.headers), (what, answer.request.url.path)
        assert not SQL.search(answer.text)
        assert not re.search(r"psycopg|sqlalchemy|Traceback|pydantic|uvicorn|postgresql", answer.text, re.IGNORECASE)
    for path, text in _log_files(stack).items():
        for what, value in secrets.items():
            assert value not in text, f"{what} stands in {path}"
        shown = SQL.search(text)
        assert not shown, f"SQL stands in {path}: {shown}"


def test_there_are_logs_to_look_into(stack: EmbeddedStack) -> None:
    """The control for the test above."""
    named = {path.name for path in _log_files(stack)}
    assert len(named) >= 5, named


def test_the_file_of_secrets_is_its_owners_alone(stack: EmbeddedStack) -> None:
    """Mode 0600."""
    files = [path for path in stack.home.iterdir() if path.is_file() and "secret" in path.name]
    assert files
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in files)


def test_passwords_are_stored_hashed_and_refresh_tokens_not_at_all(
    stack: EmbeddedStack, marked: Practice, superuser_dsn: str, central_database: str
) -> None:
    with psql(with_database(superuser_dsn, central_database)) as cursor:
        cursor.execute(
            "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables WHERE schemaname IN ('auth', 'tenant')"
        )
        tables = [row[0] for row in cursor.fetchall()]
        assert tables
        for table in tables:
            cursor.execute(
                f"SELECT count(*) FROM {table} t WHERE t::text LIKE ANY (%s)",
                ([f"%{PASSWORD}%", f"%{marked.refresh_token}%", f"%{marked.token}%"],),
            )
            assert cursor.fetchone() == (0,), table
