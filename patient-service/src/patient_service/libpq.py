"""The few functions of libpq that psycopg2 has but doesn't offer, called as its documentation shows (`pgconn_ptr`).

Nothing here blocks. psycopg2's own `cancel()` does, and keeps the interpreter's lock meanwhile: no thread helps.
"""

import ctypes
import re
from enum import IntEnum

import psycopg2
from psycopg2 import _psycopg, extensions

_CANCEL_SINCE = 170000
if extensions.libpq_version() < _CANCEL_SINCE:
    raise ImportError("psycopg2 must be built with libpq 17 or newer, as its psycopg2-binary wheel is.")

# The module's handle finds the symbols of the libpq that it was linked with, wherever that lies.
_libpq = ctypes.CDLL(_psycopg.__file__)
_libpq.PQsetErrorVerbosity.argtypes = [ctypes.c_void_p, ctypes.c_int]
_libpq.PQcancelCreate.argtypes = [ctypes.c_void_p]
_libpq.PQcancelCreate.restype = ctypes.c_void_p
for _name in ("PQcancelStart", "PQcancelPoll", "PQcancelSocket", "PQcancelFinish"):
    getattr(_libpq, _name).argtypes = [ctypes.c_void_p]
_libpq.PQcancelFinish.restype = None

_ONLY_SQLSTATE = 3
_SQLSTATE = r":\s+(?=[A-Z]*[0-9])([0-9A-Z]{5})\s*$"
_SQLSTATE_AT_END, _SQLSTATE_OF_A_LINE = re.compile(_SQLSTATE), re.compile(_SQLSTATE, re.MULTILINE)


class Polled(IntEnum):
    """PostgresPollingStatusType."""

    FAILED = 0
    READING = 1
    WRITING = 2
    OK = 3


def report_only_sqlstate(connection: psycopg2.extensions.connection) -> None:
    """Makes an error's text its severity and SQLSTATE: in no server's language, and without a row's values."""
    _libpq.PQsetErrorVerbosity(connection.pgconn_ptr, _ONLY_SQLSTATE)


def connect_sqlstate(fault: psycopg2.Error) -> str | None:
    """The SQLSTATE with which a server refused to connect (psycopg2's `pgcode` is None then).

    None when no server refused: nobody listened, the network failed. Needs `report_only_sqlstate`.
    """
    found = _SQLSTATE_AT_END.search(str(fault))
    return found[1] if found else None


def statement_sqlstate(fault: psycopg2.Error) -> str | None:
    """The SQLSTATE of a statement that failed, also when the server ended the connection with it (`pgcode` is None).

    None when the connection was lost without a word.
    """
    found = None if fault.pgcode else _SQLSTATE_OF_A_LINE.search(str(fault))
    return found[1] if found else fault.pgcode


class CancelRequest:
    """A request to end what a connection's backend is doing; encrypted if the connection is."""

    def __init__(self, connection: psycopg2.extensions.connection) -> None:
        self._request = _libpq.PQcancelCreate(connection.pgconn_ptr)
        self._started = bool(_libpq.PQcancelStart(self._request))

    def poll(self) -> Polled:
        """What to wait for on `fileno()` before the next poll."""
        return Polled(_libpq.PQcancelPoll(self._request)) if self._started else Polled.FAILED

    def fileno(self) -> int:
        """The request's socket; it may change with each poll."""
        return int(_libpq.PQcancelSocket(self._request))

    def close(self) -> None:
        """Frees it; nothing may be called afterwards."""
        _libpq.PQcancelFinish(self._request)
