"""What RabbitMQ, the network and TLS can answer, told as errors that say what to do."""

from __future__ import annotations

import re
import socket
import ssl

from amqp.exceptions import AMQPError

from umbel.core.errors import OperationalError
from umbel.engines.rabbitmq.location import Address

__all__ = ["LostConnection", "MissingQueue", "translate"]


class LostConnection(OperationalError):
    """The connection ended; what it held unacknowledged goes back to its queues."""


class MissingQueue(OperationalError):
    """The queue or exchange does not exist."""


_DIFFERS = re.compile(
    r"inequivalent arg '(?P<name>[^']*)' for (?P<kind>queue|exchange) '(?P<which>.*)' in vhost '.*?': "
    r"received (?P<ours>.*?) but current is (?P<theirs>.*?)(?: \(\d+, \d+\))?$"
)
_SETTINGS = {
    "x-max-priority": "task_queue_max_priority (or max_priority of the Queue)",
    "x-queue-type": "task_default_queue_type (or x-queue-type in queue_arguments)",
    "x-message-ttl": "message_ttl of the Queue",
    "x-expires": "expires of the Queue",
    "x-max-length": "max_length of the Queue",
    "durable": "durable of the Queue",
}


def translate(error: BaseException, address: Address, doing: str) -> OperationalError:
    """Return the error that tells what went wrong while `doing` (a verb phrase) at this address."""
    if isinstance(error, OperationalError):
        return error
    where = f"RabbitMQ at {address.text}"
    code = getattr(error, "reply_code", None) or getattr(error, "code", 0) or 0
    text = str(getattr(error, "reply_text", None) or str(error) or type(error).__name__)
    if isinstance(error, AMQPError) and code:
        return _answered(int(code), text, address, f"{where}: cannot {doing}", where)
    return LostConnection(f"{where}: cannot {doing}: {_network(error, address, text)}")


def _answered(code: int, text: str, address: Address, begun: str, where: str) -> OperationalError:
    if code == 403 and "Login was refused" in text:
        return LostConnection(
            f"{where}: wrong user name or password for {address.user!r} (ACCESS_REFUSED). Correct broker_url; "
            "@ : / in a password are written %40 %3A %2F. RabbitMQ's user 'guest' may only log in from the same host"
        )
    if code == 530 and "vhost" in text and "not found" in text:
        return LostConnection(
            f"{where}: there is no vhost {address.vhost!r}. Create it (rabbitmqctl add_vhost {address.vhost}) or "
            "correct the path of broker_url; the vhost '/' is an empty path"
        )
    if code in (403, 530) and "access to vhost" in text:
        return LostConnection(
            f"{where}: user {address.user!r} may not use the vhost {address.vhost!r}. Grant it: rabbitmqctl "
            f'set_permissions -p {address.vhost} {address.user} ".*" ".*" ".*"'
        )
    if code == 406:
        return OperationalError(_differing(text, begun))
    if code == 404:
        return MissingQueue(f"{begun}: {text}")
    if code == 320:
        return LostConnection(f"{begun}: RabbitMQ closed the connection ({text}); it may be stopping")
    if code == 403:
        return OperationalError(f"{begun}: user {address.user!r} lacks the permission ({text})")
    return OperationalError(f"{begun}: RabbitMQ answered {code} {text}")


def _differing(text: str, begun: str) -> str:
    found = _DIFFERS.search(text)
    if found is None:
        return f"{begun}: {text}"
    name, kind, which = found["name"], found["kind"], found["which"]
    setting = _SETTINGS.get(name, f"the arguments of the {kind}")
    return (
        f"{begun}: the {kind} {which!r} exists with another {name!r}: declared here with {found['ours']}, there it is "
        f"{found['theirs']}. Make {setting} say what the {kind} has, or delete the empty {kind} once "
        f"(rabbitmqctl delete_{kind} {which}) so that it is made anew"
    )


def _network(error: BaseException, address: Address, text: str) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return (
            f"its certificate was not accepted ({error.verify_message}). Name the authority with ssl_ca_certs and the "
            "name in the certificate with ssl_server_hostname"
        )
    if isinstance(error, ssl.SSLError):
        return (
            f"TLS failed ({error.reason or text}). Does port {address.port} speak TLS? amqps:// means 5671 unless the "
            "URL says otherwise, amqp:// speaks plainly"
        )
    if isinstance(error, socket.gaierror):
        return f"the host name {address.host!r} is unknown; check broker_url and DNS"
    if isinstance(error, ConnectionRefusedError):
        return f"nothing listens on port {address.port}; is RabbitMQ running, and is the port right?"
    if isinstance(error, TimeoutError):
        return "no answer in time; the server hangs, or something on the way drops packets"
    if isinstance(error, ConnectionResetError | BrokenPipeError) or "closed connection" in text:
        hint = " (a TLS port spoken to plainly looks like this)" if not address.tls else ""
        return f"the connection was cut{hint}"
    return text
