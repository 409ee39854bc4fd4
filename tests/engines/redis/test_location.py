from __future__ import annotations

import ssl
from typing import Any

import pytest

from umbel.core.envelope import TEXT_FROM
from umbel.core.errors import ImproperlyConfigured, NotSupportedError
from umbel.engines.redis.location import Location, locate


class Provider:
    """Credentials from somewhere."""

    def get_credentials(self) -> tuple[str, str]:
        return "user", "secret"


@pytest.mark.parametrize(
    ("url", "fields"),
    [
        ("redis://", {"host": "127.0.0.1", "port": 6379, "db": 0, "tls": None}),
        ("valkey://cache:7000/3", {"host": "cache", "port": 7000, "db": 3}),
        ("redis://:s%40cret@h/0", {"username": "", "password": "s@cret"}),
        ("redis://me:pw@[::1]:1/", {"host": "::1", "port": 1, "username": "me", "password": "pw", "db": 0}),
        ("redis://h?virtual_host=4&socket_timeout=2.5", {"db": 4, "socket_timeout": 2.5}),
        ("redis://h/1?db=7", {"db": 7}),
        ("redis+socket:///run/r.sock?virtual_host=2", {"path": "/run/r.sock", "db": 2}),
        ("redis+socket://:pw@/run/r.sock", {"path": "/run/r.sock", "password": "pw", "db": 0}),
        ("rediss://h", {"tls": {"ssl_cert_reqs": "required"}}),
        (
            "valkeys://h?ssl_cert_reqs=CERT_NONE&ssl_ca_certs=/ca.pem&ssl_check_hostname=false",
            {"tls": {"ssl_cert_reqs": "none", "ssl_ca_certs": "/ca.pem", "ssl_check_hostname": False}},
        ),
    ],
)
def test_a_url_says_where_the_server_is(url: str, fields: dict[str, Any]) -> None:
    location = locate(url, {})
    assert {name: getattr(location, name) for name in fields} == fields


def test_sentinels_share_one_url_and_need_the_name_of_the_master() -> None:
    location = locate("sentinel://:pw@a:1;sentinel://b;c:3/5", {"master_name": "m", "min_other_sentinels": 1})
    assert location.sentinels == (("a", 1), ("b", 26379), ("c", 3))
    assert (location.password, location.db, location.min_other_sentinels) == ("pw", 5, 1)
    with pytest.raises(ImproperlyConfigured, match="master_name"):
        locate("sentinel://a", {})


def test_the_url_goes_before_the_options() -> None:
    location = locate("redis://h?socket_timeout=1", {"socket_timeout": 9, "socket_connect_timeout": 3})
    assert (location.socket_timeout, location.socket_connect_timeout) == (1.0, 3.0)


@pytest.mark.parametrize(
    ("options", "results"),
    [
        ({}, b""),
        ({"global_keyprefix": "app"}, b"app_"),
        ({"global_keyprefix": "app:"}, b"app:"),
        ({"global_keyprefix": "app", "result_global_keyprefix": ""}, b""),
        ({"global_keyprefix": "app", "result_global_keyprefix": "res"}, b"res_"),
    ],
)
def test_results_have_the_prefix_that_celery_gives_them(options: dict[str, Any], results: bytes) -> None:
    location = locate("redis://h", options)
    assert location.prefix == options.get("global_keyprefix", "").encode()
    assert location.result_prefix == results


@pytest.mark.parametrize(
    "use_ssl",
    [
        {"ssl_cert_reqs": ssl.CERT_OPTIONAL, "ssl_ca_certs": "/ca", "ssl_keyfile": "/k", "ssl_certfile": "/c"},
        {"cert_reqs": "optional", "ca_certs": "/ca", "keyfile": "/k", "certfile": "/c"},
    ],
)
def test_a_mapping_of_tls_settings_makes_the_connection_encrypted(use_ssl: dict[str, Any]) -> None:
    assert locate("redis://h", {"ssl": use_ssl}).tls == {
        "ssl_cert_reqs": "optional",
        "ssl_ca_certs": "/ca",
        "ssl_keyfile": "/k",
        "ssl_certfile": "/c",
    }
    assert locate("redis://h", {"ssl": True}).tls == {"ssl_cert_reqs": "required"}
    assert locate("redis://h", {"ssl": False}).tls is None


@pytest.mark.parametrize("given", [Provider(), Provider, f"{__name__}.Provider"])
def test_a_credential_provider_is_an_object_a_class_or_a_name(given: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, __name__, __import__("types").SimpleNamespace(Provider=Provider))
    location = locate("redis://ignored:too@h", {"credential_provider": given})
    assert location.credential_provider.get_credentials() == ("user", "secret")
    assert (location.username, location.password) == ("", "")


@pytest.mark.parametrize(
    "options",
    [
        {"visibility_timeout": 43200, "unacked_restore_limit": 10, "polling_interval": 1.0, "max_connections": 5},
        {"ack_emulation": True, "retry_on_timeout": False, "queue_order_strategy": "round_robin"},
        {"retry_policy": {"timeout": 5.0}, "interval_start": 0, "fanout_prefix": True, "socket_timeout": None},
    ],
)
def test_what_always_holds_is_accepted(options: dict[str, Any]) -> None:
    assert locate("redis://h", options).socket_timeout == Location("").socket_timeout


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"ack_emulation": False}, "lose messages"),
        ({"retry_on_timeout": True}, "never sent twice"),
        ({"queue_order_strategy": "sorted"}, "take turns"),
    ],
)
def test_what_cannot_be_kept_is_refused_with_the_reason(options: dict[str, Any], words: str) -> None:
    with pytest.raises(NotSupportedError, match=words):
        locate("redis://h", options)


@pytest.mark.parametrize(
    ("url", "options", "words"),
    [
        ("redis://h", {"socket_timeot": 1}, "did you mean 'socket_timeout'"),
        ("redis://h?ssl_ca_cert=x", {}, "did you mean 'ssl_ca_certs'"),
        ("redis://h", {"socket_timeout": 0}, "more than 0"),
        ("redis://h", {"socket_connect_timeout": "soon"}, "number of seconds"),
        ("redis://h", {"priority_steps": [1, 5]}, "with 0 among them"),
        ("redis://h", {"ssl_ca_certs": "/ca"}, "rediss://"),
        ("rediss://h", {"ssl_cert_reqs": "maybe"}, "required, optional or none"),
        ("rediss://h", {"ssl_min_version": "SSLv3"}, "TLSv1.2"),
        ("redis://h/queue", {}, "is a number"),
        ("redis://h/-1", {}, "is a number"),
        ("redis://h:port/0", {}, "port"),
        ("redis://a;redis://b", {}, "broker_url"),
        ("redis+socket://", {}, "name the socket"),
        ("redis://h", {"credential_provider": "no.such.Thing"}, "cannot be imported"),
        ("redis://h", {"credential_provider": object()}, "get_credentials"),
    ],
)
def test_what_does_not_fit_is_told_with_what_to_do(url: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=words):
        locate(url, options)


def test_no_secret_shows() -> None:
    location = locate("redis://me:hush@h/0", {"sentinel_kwargs": {"password": "hush"}})
    assert "hush" not in repr(location)
    with pytest.raises(ImproperlyConfigured) as caught:
        locate("redis://me:hush@h/x", {})
    assert "hush" not in str(caught.value)


def test_how_bodies_are_sent_can_be_told_as_kombu_is_told() -> None:
    assert locate("redis://h", {}).text_from == TEXT_FROM
    assert locate("redis://h", {"body_encoding": "base64"}).text_from is None
    assert locate("redis://h?body_encoding=utf-8", {}).text_from == 0
    with pytest.raises(ImproperlyConfigured, match="base64"):
        locate("redis://h", {"body_encoding": "rot13"})
