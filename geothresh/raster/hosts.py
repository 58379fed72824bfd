"""Find internal hosts in the names of remote files: metadata services and link-local addresses.

A metadata service gives the credentials of a cloud machine to any request from inside it.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Iterator
from contextlib import suppress

_HOST = re.compile(r"(?:https?:/|ftp:/|/vsicurl\w*/|url=)(?=/*(?:[^/?#]*@)?([^/:?#&]+))", re.I)
_METADATA_HOSTS = {
    "instance-data",
    "instance-data.ec2.internal",
    "metadata",
    "metadata.azure.internal",
    "metadata.goog",
    "metadata.google.internal",
}
_METADATA_NETWORKS = [
    ipaddress.ip_network(network)
    for network in (
        "100.100.100.200/32", "168.63.129.16/32", "192.0.0.192/32",
        "fd00:ec2::/32", "fd20:ce::/32",
    )
]  # fmt: skip
# IPv6 networks with an IPv4 address in the last 32 bits: mapped, compatible, translated by NAT64.
_V4_INSIDE = [ipaddress.ip_network(n) for n in ("::ffff:0:0/96", "::/96", "64:ff9b::/96")]


def internal_host(name: str) -> str | None:
    """The first internal host in a remote name; None = there is none.

    Args:
        name: URL or /vsi path, with percent-encoding and wide characters decoded.
    """
    return next((host for host in _possible_hosts(name) if _is_internal(host)), None)


def _possible_hosts(plain: str) -> Iterator[str]:
    """All parts of a remote name that libcurl might take for a host, and some more.

    libcurl accepts one to three slashes after the scheme, a missing scheme, and anything before the
    last @ as a user name. An exact parser would have to match every version of libcurl.
    """
    for part in re.split(r"[/\\?#&=@\s]+", plain):
        bracketed = re.fullmatch(r"\[([^\]]*)\](:\d*)?", part)
        host = bracketed.group(1) if bracketed else re.sub(r":\d*$", "", part)
        if _address(host) is not None:
            yield host
    # Host names count only where a host stands: a directory may be called metadata, too.
    for match in _HOST.finditer(plain):
        yield match.group(1)


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The IP address of a host, written in any form that C accepts; None for a name."""
    # Like libcurl, inet_aton also accepts 0xa9fea9fe, 2852039166 and 169.254.43518.
    with suppress(OSError, ValueError):
        return ipaddress.IPv4Address(socket.inet_aton(host.rstrip(".")))
    try:
        return ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None


def _is_internal(host: str) -> bool:
    """Whether a host is link-local or a metadata service, by address or name."""
    if host.lower().rstrip(".") in _METADATA_HOSTS:
        return True
    address = _address(host)
    if address is None:
        return False
    if address.version == 6 and any(address in network for network in _V4_INSIDE):
        address = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    if address.version == 6 and address.sixtofour is not None:
        address = address.sixtofour
    return address.is_link_local or any(address in network for network in _METADATA_NETWORKS)
