"""Which client addresses count as one, wherever something is limited by address."""

from ipaddress import IPv6Address, ip_address, ip_network


def limited_as(address: str) -> str:
    """The key an address is counted by: an IPv6 host has a whole /64 to itself, and `::ffff:192.0.2.1` is IPv4."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    if not isinstance(parsed, IPv6Address):
        return str(parsed)
    if parsed.ipv4_mapped:
        return str(parsed.ipv4_mapped)
    return str(ip_network((int(parsed), 64), strict=False))
