"""Public network addresses: none that only this machine or its network can reach."""

from __future__ import annotations

import socket
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

_NAT64 = IPv6Network("64:ff9b::/96")
_SPECIAL = (
    IPv4Network("192.0.0.0/24"),  # IETF protocol assignments; a cloud's metadata server at .192
    IPv4Network("168.63.129.16/32"),  # a cloud's host agent
    IPv6Network("64:ff9b:1::/48"),  # RFC 8215, local translation
)


def is_public(text: str) -> bool:
    """Return whether an address belongs to the public internet.

    Loopback, private, link-local (where clouds keep their metadata), shared, multicast, reserved and unspecified
    addresses are not; neither is an IPv6 address that stands for such an IPv4 address (mapped, 6to4, Teredo, NAT64).
    """
    address = ip_address(text.partition("%")[0])
    embedded = _embedded(address) if isinstance(address, IPv6Address) else ()
    if embedded:
        return all(is_public(str(inner)) for inner in embedded)
    special = any(address.version == network.version and address in network for network in _SPECIAL)
    site_local = isinstance(address, IPv6Address) and address.is_site_local
    return address.is_global and not (address.is_multicast or address.is_reserved or special or site_local)


def addresses_of(host: str, port: int) -> list[str]:
    """Return the addresses of a host in the order to try them; raise OSError where it has none."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as error:
        raise OSError("no host can have this name") from error
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def _embedded(address: IPv6Address) -> tuple[IPv4Address, ...]:
    """The IPv4 addresses that an IPv6 address stands for."""
    if address.ipv4_mapped is not None:
        return (address.ipv4_mapped,)
    if address.sixtofour is not None:
        return (address.sixtofour,)
    if address.teredo is not None:
        return address.teredo
    if address in _NAT64:
        return (IPv4Address(int(address) & 0xFFFFFFFF),)
    return ()
