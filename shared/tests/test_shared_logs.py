"""Logs: what goes in, what stays out, and what happens when nobody takes them."""

import logging
import sys

import orjson

from shared.logs import describe_fault, get_logger


class FullDisk:
    def write(self, *_):
        raise OSError(28, "No space left on device")

    flush = write


def test_a_line_is_one_json_object(capsys):
    get_logger().warning("something_happened", practice_id="p")
    line = orjson.loads(capsys.readouterr().out)
    assert {"event": "something_happened", "level": "warning", "practice_id": "p"}.items() <= line.items()


def test_a_library_s_values_stay_out(capsys):
    logging.getLogger("library").warning("failed for %s", "Marker")
    assert "Marker" not in capsys.readouterr().out


def test_a_fault_is_told_without_its_text():
    try:
        int("Marker")
    except ValueError as fault:
        told = describe_fault(fault)
    assert told["fault"] == "builtins.ValueError"
    assert "Marker" not in str(told)


def test_a_full_disk_costs_the_line_and_nothing_else(monkeypatch):
    monkeypatch.setattr(sys, "stdout", FullDisk())
    get_logger().error("nobody_reads_this")
