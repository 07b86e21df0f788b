"""Mails are caught whole, and shown so that nothing in them can act."""

import email
import json
import re
import signal
import smtplib
import subprocess
import sys
import urllib.error
import urllib.request
from email.message import EmailMessage

import pytest

from gowebbo_stack.mailpage import Page, respond
from gowebbo_stack.ports import free_port

EVIL = "<script>alert('x')</script>"


@pytest.fixture(scope="module")
def catcher(tmp_path_factory):
    """The catcher as a container runs it."""
    directory = tmp_path_factory.mktemp("catcher") / "mails"
    smtp_port, http_port = free_port(), free_port()
    command = [sys.executable, "-m", "gowebbo_stack", "mailbox", f"--directory={directory}"]
    with subprocess.Popen(
        [*command, f"--smtp-port={smtp_port}", f"--http-port={http_port}"], stdout=subprocess.PIPE, text=True
    ) as process:
        assert f":{smtp_port}" in process.stdout.readline()
        yield directory, smtp_port, f"http://127.0.0.1:{http_port}"
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


def get(url, **headers):
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as answer:
        return answer.read().decode(), answer.headers


def send(smtp_port):
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = "clinic@example.com", "ada@example.com", f"Grüße {EVIL}"
    mail.set_content(f"Plain text {EVIL}")
    mail.add_alternative(f"<p>Rich text</p>{EVIL}", subtype="html")
    with smtplib.SMTP("127.0.0.1", smtp_port) as client:
        client.send_message(mail)


def test_a_mail_is_a_private_file_when_the_sender_hears_250(catcher):
    directory, smtp_port, _ = catcher
    before = set(directory.glob("new/*"))
    send(smtp_port)
    (file,) = set(directory.glob("new/*")) - before
    mail = email.message_from_bytes(file.read_bytes(), policy=email.policy.default)
    assert mail["Subject"] == f"Grüße {EVIL}"
    assert mail["Delivered-To"] == "ada@example.com"
    assert "Rich text" in mail.get_body(("html",)).get_content()
    assert file.stat().st_mode & 0o077 == 0


def test_the_page_shows_a_mail_without_letting_it_act(catcher):
    _, smtp_port, url = catcher
    send(smtp_port)
    listed, _ = get(url)
    assert EVIL not in listed
    link = re.search(r'href="(/mail/[^"]+)"', listed)[1]
    shown, headers = get(url + link)
    assert "Plain text &lt;script&gt;" in shown
    assert EVIL not in shown
    assert f'<iframe sandbox="" title="HTML" src="{link}/html">' in shown
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    html, headers = get(url + link + "/html")
    assert "Rich text" in html
    assert headers["Content-Security-Policy"].startswith("sandbox; default-src 'none'")
    assert headers["X-Content-Type-Options"] == "nosniff"


def test_the_page_answers_only_by_a_local_name(catcher):
    """Another site's name that resolves to this machine (DNS rebinding) reads nothing."""
    _, _, url = catcher
    with pytest.raises(urllib.error.HTTPError) as refused:
        get(url, Host="evil.example.com")
    assert refused.value.code == 421
    for name in ("localhost:8025", "mailbox", "[::1]:8025"):
        get(url, Host=name)


@pytest.mark.parametrize("path", ["/mail/../../secrets.json", "/mail/%2e%2e%2fnew", "/mail/", "/other", "/mail/x/y/z"])
def test_what_is_no_mail_is_not_found(tmp_path, path):
    (tmp_path / "secrets.json").write_text(json.dumps({}))
    answer = respond(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n", Page(tmp_path))
    assert answer.startswith(b"HTTP/1.1 404 ")


def test_nothing_can_be_changed_through_the_page(tmp_path):
    answer = respond("DELETE / HTTP/1.1\r\nHost: localhost\r\n\r\n", Page(tmp_path))
    assert answer.startswith(b"HTTP/1.1 405 ")


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff\xfe no headers", b"Subject: =?utf-99?q?x?=\r\nContent-Type: text/plain; charset=none\r\n\r\n\xff"],
)
def test_broken_mails_are_shown_too(tmp_path, content):
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "1.broken").write_bytes(content)
    page = Page(tmp_path)
    for path in ("/", "/mail/1.broken"):
        assert respond(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n", page).startswith(b"HTTP/1.1 200 ")
