"""Which of a service's processes carries a practice's calls. Pure, and the same in every gateway and after a restart.

A process of patient-service keeps a connection for each practice that it serves. With all calls of a practice in one
place it has one connection however many processes there are, so the servers' connections suffice for as many practices
as with one process. For that, nobody takes over from a process that is down: its practices wait until it is back.
"""

from zlib import crc32


def place_of(practice_id: str, places: int) -> int:
    """The practice's place, from 0 to `places` - 1.

    A plain remainder: another number of places means new shares of the servers' connections, hence new processes that
    open every connection anew wherever a practice goes. Python's own hash differs from process to process.
    """
    return crc32(practice_id.encode()) % places if places > 1 else 0
