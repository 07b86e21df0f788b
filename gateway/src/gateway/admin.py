"""The platform's admin: HTTP Basic (RFC 7617), compared in constant time, throttled by address, never locked out."""

import base64
import binascii
import hmac
from hashlib import sha256

from gateway.exceptions import AdminThrottledError
from gateway.throttle import FailureThrottle
from shared.context import Caller
from shared.errors import UnauthenticatedError
from shared.roles import ADMIN

CHALLENGE = 'Basic realm="gowebbo admin", charset="UTF-8"'
MAX_CREDENTIALS_BYTES = 1024


class AdminDoor:
    """Knows the admin's credentials and lets nobody else in."""

    def __init__(self, name: str, password: str, throttle: FailureThrottle) -> None:
        self._expected = _digest(f"{name}:{password}".encode())
        self._throttle = throttle

    def enter(self, credentials: bytes, address: str) -> Caller:
        """The admin's context. Raises UnauthenticatedError, AdminThrottledError (also for the right password then)."""
        wait_s = self._throttle.wait_s(address)
        if wait_s:
            raise AdminThrottledError("Too many failed log-ins from this address.", retry_after_s=wait_s)
        # both sides are digests: the comparison's time tells neither the length nor which part was wrong
        if not hmac.compare_digest(_digest(_decoded(credentials)), self._expected):
            self._throttle.failed(address)
            raise UnauthenticatedError("Wrong name or password.", headers={"WWW-Authenticate": CHALLENGE})
        self._throttle.succeeded(address)
        return Caller(role=ADMIN, user_id=ADMIN, client_address=address)


def _decoded(credentials: bytes) -> bytes:
    """`name:password`; something that can't be right for anything malformed."""
    try:
        return base64.b64decode(credentials[:MAX_CREDENTIALS_BYTES], validate=True)
    except binascii.Error:
        return b""


def _digest(value: bytes) -> bytes:
    return sha256(value).digest()
