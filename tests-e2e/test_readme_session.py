"""The README's session with curl, pasted into bash as it is printed there."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from e2e_stack import EmbeddedStack, Mailbox

README = Path(__file__).parents[1] / "README.md"
PRINTED_PORT = "localhost:5000"
PRINTED_EMAIL = "abc@example.com"
EMAIL = "readme-session@example.com"  # the printed one belongs to the journey that the original's README tells
TIMEOUT_S = 60


def _printed_session() -> str:
    """The one shell block that signs a practice up."""
    blocks = re.findall(r"^```sh\n(.*?)^```$", README.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    [session] = [block for block in blocks if "/practices/signup" in block]
    assert PRINTED_PORT in session
    assert PRINTED_EMAIL in session
    return str(session)


def _answers(printed: str) -> Iterator[dict[str, Any]]:
    """The JSON documents that stand one behind the other, for curl prints no line's end."""
    rest = printed.strip()
    while rest:
        answer, end = json.JSONDecoder().raw_decode(rest)
        yield answer
        rest = rest[end:].strip()


def test_the_readmes_session_works_when_it_is_pasted_into_bash(stack: EmbeddedStack, mailbox: Mailbox) -> None:
    for program in ("bash", "curl", "python3"):
        assert shutil.which(program), f"the README's session needs {program}, which is not on PATH: install it"
    session = _printed_session().replace(PRINTED_PORT, f"127.0.0.1:{stack.port}").replace(PRINTED_EMAIL, EMAIL)
    pasted = subprocess.run(
        ["bash", "--noprofile", "--norc"],
        input=session,
        env={"PATH": os.environ["PATH"]},  # no proxy of this machine's, no settings of its user's
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert pasted.stderr == ""
    assert pasted.returncode == 0
    answers = list(_answers(pasted.stdout))
    assert [(answer["status"], answer["message"]) for answer in answers] == [
        (201, "Practice registered successfully!"),
        (200, "Practices fetched successfully!"),
        (200, "Patients fetched successfully!"),
        (200, "Patient updated successfully!"),
        (200, "Patient deleted successfully!"),
        (200, "Patient restored successfully!"),
    ]
    _, _, listed, changed, _, restored = (answer.get("result") for answer in answers)
    [patient] = listed["data"]
    assert patient.items() >= {"name": "Patient A", "age": 30, "mobile": "9876543210"}.items()
    assert (changed["age"], restored["age"], restored["is_deleted"]) == (31, 31, 0)
    mailbox.wait_for(EMAIL)
