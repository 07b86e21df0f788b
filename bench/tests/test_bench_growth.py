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
    found.practice_disk_mb, found.again_ready_s = 7.7, 8.0
    found.sizes = {1_000_000: dict.fromkeys(KINDS, RUN)}
    found.choices = [Choice(*choice, RUN, RUN) for choice in CHOICES]
    return found


def test_every_step_is_shown():
    text = rendered(growth())

    assert "| 2,000 | 2,300 | 2,000 | 4.0 | 9.0 | 2,000 | 4.0 | 9.0 | 3 |" in text
    assert "| 2,000 | 1,000 | 2,009 | 50 | 70 | 900 | 1,025 | 7 | 100 | 200 | 0 | 0 |" in text
    assert "ready after 8.0 s" in text
    assert "| 1,000,000 | 2,000 | 9.0 |" in text
    assert "| 2 | 1 | 2,000 | 4.0 | 9.0 |" in text


def test_steps_without_room_for_every_connection_are_not_plotted():
    circles = ET.fromstring(plotted(growth())).findall("{http://www.w3.org/2000/svg}circle")

    assert len(circles) == 2 * 3
