"""The growth report renders whatever was measured, and plots only what had all its connections open."""

from xml.etree import ElementTree as ET

from growth_report import KINDS, Growth, Step, plotted, rendered
from measured import Measured
from processes import CHOICES, Choice

RUN = Measured(2000.0, 8000, 4.0, 9.0, 0, {"gateway": 0.8, "patient-service": 1.6})


def step(practices: int, allowed: int) -> Step:
    faulty = Measured(1.0, 1, 5.0, 5.0, failed=3)
    memory = {"gateway": 50.0, "patient-service": 70.0, "postgres": 900.0, "redis": 5.0}
    return Step(practices, allowed, faulty, RUN, None, RUN, RUN, practices + 9, memory, busy_at_rest=0.07)


def growth() -> Growth:
    found = Growth(["A machine."], rounds=3, seconds=4)
    found.steps = [step(1, 2300), step(100, 2300), step(2000, 2300), step(2000, 1000)]
    found.practice_disk_mb, found.stopped_s, found.again_ready_s = 7.7, 9.0, 8.0
    found.sizes = {1_000_000: dict.fromkeys(KINDS, RUN)}
    found.choices = [Choice(*choice, RUN, RUN) for choice in CHOICES]
    return found


def test_every_step_is_shown():
    text = rendered(growth())

    assert "| 2,000 | 2,300 | 2,000 | 4.0 | 9.0 | 2,000 | 4.0 | 9.0 | 3 |" in text
    assert "| 2,000 | 1,000 | 2,009 | 50 | 70 | 900 | 1,025 | 7 | 100 | 200 | 0 | 0 |" in text
    assert "stopped within 9.0 s" in text
    assert "ready after 8.0 s" in text
    assert "| 1,000,000 | 2,000 | 9.0 |" in text
    assert "| 2 | 1 | 2,000 | 4.0 | 9.0 |" in text


def test_steps_without_room_for_every_connection_are_not_plotted():
    circles = ET.fromstring(plotted(growth())).findall("{http://www.w3.org/2000/svg}circle")

    assert len(circles) == 2 * 3


def test_what_is_not_measured_yet_is_left_out():
    """A run that breaks later must not lose what it has."""
    so_far, whole = Growth(["A machine."], rounds=3, seconds=4), growth()
    headings = [headings_of(so_far)]
    for name in ("choices", "steps", "sizes"):
        setattr(so_far, name, getattr(whole, name))
        headings.append(headings_of(so_far))

    assert headings[0] == ["# Growth, measured"]
    assert headings[1] == [*headings[0], "## More processes"]
    assert set(headings[2]) - set(headings[1]) == {
        "## More practices",
        "## A practice's first call",
        "## What it takes",
    }
    assert headings[3] == headings_of(whole)
    assert "the stack stopped" not in rendered(so_far)


def headings_of(some: Growth) -> list[str]:
    return [line for line in rendered(some).splitlines() if line.startswith("#")]
