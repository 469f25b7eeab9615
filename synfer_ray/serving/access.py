"""Who may ask: callers with the bearer token, and callers of this machine where only those are meant."""

import hmac
import ipaddress
import os
from urllib.parse import unquote

from synfer_ray.errors import InputError
from synfer_ray.serving.refusal import Refusal


class Access:
    """The rule of one server.

    Args:
        token_env: the environment variable that holds the bearer token; empty if callers need none.
        host: the address the server is meant for; with a loopback one, other machines are refused.

    Raises:
        InputError: the variable is not set, or empty.
    """

    def __init__(self, token_env: str, host: str) -> None:
        token = os.environ.get(token_env, "") if token_env else ""
        if token_env and not token:
            raise InputError(f"token_env: the environment variable {token_env!r} is not set, or empty")
        self.expected = f"Bearer {token}".encode() if token else b""
        self.local_only = is_loopback(host)

    def check_token(self, authorization: str) -> None:
        """Compares the value of an Authorization header, in a time that does not depend on the value.

        Raises:
            Refusal: (401) it is not the token.
        """
        if self.expected and not hmac.compare_digest(authorization.encode(), self.expected):
            raise Refusal(401, "this server needs a bearer token: Authorization: Bearer TOKEN")

    def check_peer(self, peer: str) -> None:
        """Checks a gRPC peer, like `ipv4:127.0.0.1:4321` or `ipv6:%5B::1%5D:4321`.

        Raises:
            Refusal: (403) it is on another machine, and the server is for this one.
        """
        family, _, address = unquote(peer).partition(":")
        if self.local_only and family != "unix" and not is_loopback(address.rpartition(":")[0].strip("[]")):
            raise Refusal(403, "this server answers callers on its own machine only")


def is_loopback(host: str) -> bool:
    """Tells whether an address, or `localhost`, means this machine."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host == "localhost"
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback
