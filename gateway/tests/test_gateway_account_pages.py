"""The pages that mails link to: complete in themselves, and closed to everybody else's scripts."""

import re
import shutil
import subprocess

import pytest
from gateway_stand import Stand

PAGES = ("verify", "reset", "join")


@pytest.mark.parametrize("name", PAGES)
def test_a_page_loads_nothing_from_elsewhere_and_runs_no_script_but_its_own(stand: Stand, name: str) -> None:
    answer = stand.client.get(f"/account/{name}")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/html")
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["referrer-policy"] == "no-referrer"
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    loaded = re.findall(r'(?:src|href)="([^"]+)"', answer.text)
    assert loaded == ["static/account.css", "static/account.js"]
    for path in loaded:
        assert stand.client.get(f"/account/{path}").status_code == 200
    assert not re.search(r"<script>|\son[a-z]+=|\sstyle=", answer.text)
    assert stand.client.head(f"/account/{name}").status_code == 200


@pytest.mark.parametrize("name", PAGES)
def test_every_field_has_a_label_and_the_api_that_it_is_sent_to_is_public(stand: Stand, name: str) -> None:
    text = stand.client.get(f"/account/{name}").text
    fields = re.findall(r'<input id="([a-z]+)"', text)
    assert fields[0] == "token"
    assert re.findall(r'<label for="([a-z]+)"', text) == fields
    (path,) = re.findall(r'data-api="([^"]+)"', text)
    assert stand.client.post(path, json={}).status_code != 401
    assert '<p role="status"></p>' in text


def test_other_pages_are_unknown(stand: Stand) -> None:
    for path in (
        "/account",
        "/account/",
        "/account/nothing",
        "/account/verify/x",
        "/account/static/verify.html",
        "/account/static/../../main.py",
    ):
        assert stand.client.get(path).status_code == 404, path
    assert stand.client.post("/account/verify").status_code == 405


def test_the_script_reads_the_fragment_hides_it_and_writes_no_markup(stand: Stand) -> None:
    script = stand.client.get("/account/static/account.js").text
    assert "innerHTML" not in script
    assert script.index("location.hash") < script.index("history.replaceState")
    if node := shutil.which("node"):
        subprocess.run([node, "--check", "-"], input=script.encode(), check=True)
