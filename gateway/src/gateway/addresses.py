"""Whose address a call counts for: the peer's, unless a proxy that the operator trusts says otherwise."""

from collections.abc import Sequence
from ipaddress import ip_address

from gateway.config import Network


class ClientAddresses:
    """Reads `X-Forwarded-For` from trusted proxies only, from the right, up to the first address nobody vouches for."""

    def __init__(self, trusted: Sequence[Network]) -> None:
        self._trusted = tuple(trusted)

    def of(self, peer: tuple[str, int] | None, forwarded_for: Sequence[bytes]) -> str:
        """The client's address; empty over a unix socket, where a peer has none."""
        address = peer[0] if peer else ""
        if not (self._trusted and forwarded_for and self._vouched(address)):
            return address
        for hop in reversed(b",".join(forwarded_for).split(b",")):
            found = _address_in(hop)
            if not found:
                break
            address = found
            if not self._vouched(address):
                break
        return address

    def _vouched(self, address: str) -> bool:
        try:
            parsed = ip_address(address)
        except ValueError:
            return False
        mapped = getattr(parsed, "ipv4_mapped", None)
        return any((mapped or parsed) in network for network in self._trusted)


def _address_in(hop: bytes) -> str | None:
    """The address of `1.2.3.4`, `1.2.3.4:5`, `::1`, `[::1]:5`; None for anything else."""
    text = hop.strip().decode("latin-1")
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        return None if "%" in text else str(ip_address(text))
    except ValueError:
        return None
