"""The mail of an event: its text, and what a hostile name or address can not do to it."""

import email
import email.policy
from email.message import EmailMessage
from html import escape

import pytest
from notifier_rig import registered

from notifier.exceptions import UnmailableEventError
from notifier.letters import LETTERS, Letter, LetterWriter
from shared import events


@pytest.fixture(scope="module")
def writer() -> LetterWriter:
    return LetterWriter(sender="mail@gowebbo.example", public_url="https://gowebbo.example")


def parts(letter: Letter) -> tuple[EmailMessage, str, str]:
    """The mail as its reader's program sees it: headers, text, HTML."""
    read = email.message_from_bytes(letter.message.as_bytes(), policy=email.policy.default)
    text, page = read.get_body(("plain",)), read.get_body(("html",))
    assert text
    assert page
    return read, text.get_content(), page.get_content()


def test_every_event_type_becomes_a_mail():
    types = {value for name, value in vars(events).items() if name.isupper() and "." in str(value)}
    assert types == set(LETTERS)


def test_the_welcome_mail_names_the_practice_in_text_and_html(writer: LetterWriter):
    event = registered(name="Dr. Müller & Söhne 診療所")
    letter = writer.write(event)
    read, text, page = parts(letter)
    assert read["Subject"] == "Welcome to GoWebbo, Dr. Müller & Söhne 診療所"
    assert (read["From"], read["To"]) == ("mail@gowebbo.example", "owner@oak.example")
    assert read["Date"].datetime.tzinfo is not None
    assert "Hello Dr. Müller & Söhne 診療所," in text
    assert "Welcome, Dr. Müller &amp; Söhne 診療所!" in page
    assert "https://gowebbo.example/docs" in text
    assert 'href="https://gowebbo.example/docs"' in page
    assert "reset" not in (text + page).lower()


PAYLOADS = {
    events.PRACTICE_REGISTERED: {"name": "Oak", "email": "o@oak.example", "token": "t0ken-_x"},
    events.EMAIL_UNVERIFIED: {"name": "Ann", "email": "o@oak.example", "token": "t0ken-_x"},
    events.PASSWORD_FORGOTTEN: {"name": "Ann", "email": "o@oak.example", "token": "t0ken-_x"},
    events.PASSWORD_CHANGED: {"name": "Ann", "email": "o@oak.example", "at": "2026-11-26 10:00 UTC", "address": "::1"},
    events.DEVICE_SEEN: {
        "name": "Ann",
        "email": "o@oak.example",
        "at": "2026-11-26 10:00 UTC",
        "address": "192.0.2.1",
        "device": "Firefox <150>",
    },
    events.STAFF_INVITED: {
        "email": "o@oak.example",
        "practice": "Oak & Elm",
        "inviter": "Ann",
        "role": "clinician",
        "token": "t0ken-_x",
    },
}


@pytest.mark.parametrize("kind", LETTERS)
def test_every_mail_says_in_both_parts_what_its_event_says(writer: LetterWriter, kind: str):
    payload = PAYLOADS[kind]
    read, text, page = parts(writer.write(registered(type=kind, payload=payload)))
    assert read["To"] == "o@oak.example"
    said = {value for name, value in payload.items() if name not in {"token", "email"}}
    if kind != events.PRACTICE_REGISTERED:
        assert all(value in text + read["Subject"] for value in said)
    assert all(escape(value) in page for value in said)
    if "token" in payload:
        link = f"https://gowebbo.example{LETTERS[kind].page}#t0ken-_x"
        assert {"t0ken-_x", link} <= {line.strip() for line in text.splitlines()}, "each on a line of its own"
        assert f'href="{link}"' in page
    else:
        assert "#" not in text


@pytest.mark.parametrize("kind", LETTERS)
def test_only_the_mail_that_resets_a_password_says_so(writer: LetterWriter, kind: str):
    read, text, page = parts(writer.write(registered(type=kind, payload=PAYLOADS[kind])))
    assert ("reset" in f"{read['Subject']}{text}{page}".lower()) == (kind == events.PASSWORD_FORGOTTEN)


@pytest.mark.parametrize("kind", [kind for kind in LETTERS if kind != events.PRACTICE_REGISTERED])
def test_a_mail_that_lacks_something_is_not_written(writer: LetterWriter, kind: str):
    for name in PAYLOADS[kind]:
        without = {key: value for key, value in PAYLOADS[kind].items() if key != name}
        with pytest.raises(UnmailableEventError):
            writer.write(registered(type=kind, payload=without))


def test_a_welcome_without_a_token_is_a_mail_without_a_link(writer: LetterWriter):
    """As an older version published it."""
    _, text, page = parts(writer.write(registered()))
    assert "#" not in text
    assert "/account/" not in text + page
    with pytest.raises(UnmailableEventError):
        writer.write(registered(payload=PAYLOADS[events.PRACTICE_REGISTERED] | {"token": 5}))


def test_the_page_carries_its_style_with_it(writer: LetterWriter):
    """Mail programs drop style sheets, and nothing is loaded from anywhere."""
    _, _, page = parts(writer.write(registered()))
    assert "<style" not in page
    assert 'style="margin' in page
    assert "src=" not in page


def test_the_same_event_always_gets_the_same_message_id(writer: LetterWriter):
    event = registered()
    ids = {str(writer.write(event).message["Message-ID"]) for _ in range(2)}
    assert ids == {f"<{event.id}@gowebbo.example>"}


@pytest.mark.parametrize(
    "name",
    [
        "Oak\r\nBcc: victim@elsewhere.example",
        "Oak\nSubject: other",
        "Oak\r\n\r\n<b>body</b>",
        "Oak\x0bBcc: a@b.c",
        "Oak\u2028Bcc: a@b.c\u2029",
        "Oak\x85Bcc: a@b.c",
        "Oak\x00\x1b[31m",
    ],
)
def test_a_hostile_name_adds_no_header(writer: LetterWriter, name: str):
    letter = writer.write(registered(name=name))
    read, _, _ = parts(letter)
    plain, _, _ = parts(writer.write(registered()))
    assert read.keys() == plain.keys()
    assert read.get_all("Subject") == [read["Subject"]]
    assert b"\nBcc:" not in letter.message.as_bytes()
    assert not set("\r\n\0\x1b\x0b\x85\u2028\u2029") & set(str(read["Subject"]))


def test_a_hostile_name_adds_no_markup(writer: LetterWriter):
    _, _, page = parts(writer.write(registered(name='<script>x</script><a href="http://e.example">')))
    assert "<script" not in page
    assert '&lt;a href="http://e.example"&gt;' in page.replace("&quot;", '"')


@pytest.mark.parametrize(
    "address",
    [
        "",
        "owner",
        "owner@",
        "@oak.example",
        "owner@oak.example, victim@elsewhere.example",
        "owner@oak.example;victim@elsewhere.example",
        "Owner <owner@oak.example>",
        "owner@oak.example (comment)",
        "owner@oak.example\r\nBcc: victim@elsewhere.example",
        "owner @oak.example",
        "owner@oak.example\n",
        "a:b@oak.example",
    ],
)
def test_only_one_bare_address_gets_a_mail(writer: LetterWriter, address: str):
    with pytest.raises(UnmailableEventError):
        writer.write(registered(address=address))


@pytest.mark.parametrize("address", ["o'neil+gowebbo@oak.example", "jörg@oak.example", '"o lane"@oak.example'])
def test_unusual_addresses_are_kept_as_they_are(writer: LetterWriter, address: str):
    letter = writer.write(registered(address=address))
    assert letter.recipient == address
    assert str(letter.message["To"]) == address


@pytest.mark.parametrize(
    "changes",
    [
        {"type": "practice.unheard-of"},
        {"payload": {}},
        {"payload": {"name": "Oak", "email": None}},
        {"payload": {"name": ["Oak"], "email": "a@oak.example"}},
        {"id": ""},
        {"id": "x> <y@z"},
        {"id": "a\r\nBcc: b"},
    ],
)
def test_an_event_without_a_mail_is_named_as_such(writer: LetterWriter, changes: dict[str, object]):
    with pytest.raises(UnmailableEventError):
        writer.write(registered(**changes))
