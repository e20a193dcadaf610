"""URLs: their parts, the part that messages may show, and the hosts that `hosts=` allows."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from urllib.parse import SplitResult, urlsplit

from visionadapt.errors import SourceError
from visionadapt.sources.arguments import several

PORTS = {"http": 80, "https": 443}


@lru_cache(maxsize=64)
def split_url(url: str) -> SplitResult | None:
    """Split a URL into its parts; None where it is invalid or has an impossible port."""
    try:
        parts = urlsplit(url)
        return parts if parts.port != 0 else None
    except ValueError:
        return None


def shown(url: str) -> str:
    """Return a URL as a message may show it: without user, password, query and fragment."""
    parts = split_url(url)
    if parts is None:
        return "(no URL)"
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}" if host else f"{parts.scheme}:…"


@lru_cache(maxsize=64)
def origin(url: str) -> tuple[str, str, int]:
    """Return scheme, host and port; empty ones for anything but an http or https URL."""
    parts = split_url(url)
    if parts is None or parts.scheme not in PORTS or not parts.hostname:
        return ("", "", 0)
    return (parts.scheme, parts.hostname.rstrip("."), parts.port or PORTS[parts.scheme])


def host_names(hosts: str | Sequence[str]) -> tuple[str, ...]:
    """Return the entries of `hosts=` in lower case; raise SourceError where one is not `host` or `host:port`."""
    names = tuple(name.strip().lower() for name in several(hosts))
    for name in names:
        allowed(name)
    return names


def allowed(host: str) -> tuple[tuple[str, int], ...]:
    """Return the pairs of host and port that an entry of `hosts=` allows: the ports 80 and 443, or the one it names."""
    parts = split_url(f"//{host}")
    if parts is None or not parts.hostname or parts.netloc != host or "@" in host:
        raise SourceError("hosts= must name each host as host or host:port, without scheme, user and path")
    return tuple((parts.hostname.rstrip("."), port) for port in ((parts.port,) if parts.port else PORTS.values()))


def refusal(url: str, pairs: frozenset[tuple[str, int]]) -> str | None:
    """Return why a URL must not be requested, if only these pairs of host and port may; None where it may."""
    parts = split_url(url)
    scheme, host, port = origin(url)
    if parts is None or not host:
        return "it is no http or https URL"
    if "@" in parts.netloc:
        return "it holds a user or a password"
    if (host, port) not in pairs:
        bare = f"[{host}]" if ":" in host else host
        name = bare if port == PORTS[scheme] else f"{bare}:{port}"
        return f"its host {name} is not allowed; hosts={name} allows it"
    return None
