from __future__ import annotations

import ssl
from typing import Any

import pytest

from umbel.core.errors import ImproperlyConfigured, NotSupportedError
from umbel.engines.rabbitmq.location import locate


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("amqp://", ("localhost", 5672, "guest", "guest", "/", False)),
        ("amqp://u:p%40ss@h//", ("h", 5672, "u", "p@ss", "/", False)),
        ("pyamqp://u:p@h:99/v", ("h", 99, "u", "p", "v", False)),
        ("amqps://h/a%2Fb", ("h", 5671, "guest", "guest", "a/b", True)),
        ("librabbitmq://[::1]:7/v", ("::1", 7, "guest", "guest", "v", False)),
        ("amqp://h?ssl=true", ("h", 5671, "guest", "guest", "/", True)),
    ],
)
def test_a_url_says_where_and_who(url: str, expected: tuple[Any, ...]) -> None:
    (address,) = locate(url, {}).addresses
    assert (
        *(address.host, address.port, address.user),
        *(address.password, address.vhost, address.tls),
    ) == expected


def test_several_hosts_share_what_the_first_one_says() -> None:
    first, second, third = locate("amqp://u:p@a/v;b:99;amqp://x:y@c/w", {}).addresses
    assert (first.host, second.host, second.port, second.user, second.vhost) == ("a", "b", 99, "u", "v")
    assert (third.user, third.vhost) == ("x", "w")


def test_the_query_and_the_options_are_one_set_of_names() -> None:
    location = locate("amqp://h?heartbeat=7&connect_timeout=2", {"read_timeout": 3, "ssl_cert_reqs": "CERT_NONE"})
    assert (location.heartbeat, location.connect_timeout, location.read_timeout) == (7, 2, 3)
    assert location.tls == {"cert_reqs": ssl.CERT_NONE}


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"heartbeet": 1}, ImproperlyConfigured, "did you mean 'heartbeat'"),
        ({"heartbeat": "often"}, ImproperlyConfigured, "number of seconds"),
        ({"confirm_publish": False}, NotSupportedError, "cannot be turned off"),
        ({"max_retries": 3}, NotSupportedError, "task_publish_retry_policy"),
        ({"ssl": {"cipher": "x"}}, ImproperlyConfigured, "ssl has no option"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_to_do(options: dict[str, Any], kind: type, words: str) -> None:
    with pytest.raises(kind, match=words):
        locate("amqp://", options)


def test_a_password_in_the_place_of_a_port_is_not_shown() -> None:
    with pytest.raises(ImproperlyConfigured) as caught:
        locate("amqp://user:secret", {})
    assert "secret" not in str(caught.value)
