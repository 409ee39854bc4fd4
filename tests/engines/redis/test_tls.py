from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.servers import RedisServer
from tests.servers.process import free_port
from umbel.engines.redis.bus import RedisBus
from umbel.engines.redis.connection import Client
from umbel.engines.redis.failures import RedisFailure
from umbel.engines.redis.location import locate


def openssl(*words: str, folder: Path) -> None:
    subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority, a certificate for localhost that it signed, and an authority that nobody trusts."""
    folder = tmp_path_factory.mktemp("certificates")
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")
    for name in ("ca", "other"):
        files = ("-keyout", f"{name}.key", "-out", f"{name}.pem")
        openssl("req", "-x509", *key, *files, "-subj", f"/CN={name}", folder=folder)
    openssl("req", *key[:-2], "-keyout", "it.key", "-out", "it.csr", "-subj", "/CN=localhost", folder=folder)
    (folder / "names").write_text("subjectAltName=DNS:localhost\n")
    signed_by = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "names")
    openssl("x509", "-req", "-in", "it.csr", "-out", "it.pem", *signed_by, folder=folder)
    return folder


@pytest.fixture(scope="module")
def server(redis_installed: None, certificates: Path) -> Iterator[RedisServer]:
    """A Redis with a plain port and a TLS port on which clients show a certificate too."""
    with RedisServer(
        tls_port=free_port(),
        tls_cert_file=certificates / "it.pem",
        tls_key_file=certificates / "it.key",
        tls_ca_cert_file=certificates / "ca.pem",
        tls_auth_clients="yes",
    ) as server:
        yield server


@pytest.fixture
def connect(server: RedisServer, request: pytest.FixtureRequest) -> Callable[..., Client]:
    def make(scheme: str = "rediss", host: str = "localhost", port: str = "tls-port", **options: Any) -> Client:
        client = Client(locate(f"{scheme}://{host}:{server.settings[port]}/0", options))
        request.addfinalizer(client.close)
        return client

    return make


@pytest.fixture
def trusted(certificates: Path) -> dict[str, Any]:
    return {
        "ssl_ca_certs": str(certificates / "ca.pem"),
        "ssl_certfile": str(certificates / "it.pem"),
        "ssl_keyfile": str(certificates / "it.key"),
    }


def failure(client: Client) -> RedisFailure:
    with pytest.raises(RedisFailure) as caught:
        client.call("PING")
    assert not caught.value.maybe_done
    return caught.value


def test_everything_works_over_tls(connect: Callable[..., Client], trusted: dict[str, Any]) -> None:
    client = connect(**trusted)
    value = "x" * 300_000
    assert client.pipeline([("SET", "a", value), ("GET", "a")]) == [b"OK", value.encode()]
    ear = RedisBus(client).listen(["t"])
    RedisBus(client).send("t", [value.encode(), b"2"], 0.0)
    heard: list[tuple[str, bytes]] = []
    while len(heard) < 2:
        heard += ear.receive(10) or pytest.fail("nothing was heard")
    assert heard == [("t", value.encode()), ("t", b"2")]
    ear.close()
    assert connect("redis", ssl=trusted).call("GET", "a") == value.encode()


def test_a_call_over_tls_has_a_deadline(
    server: RedisServer, connect: Callable[..., Client], trusted: dict[str, Any]
) -> None:
    client = connect(**trusted, socket_timeout=0.3)
    client.call("PING")
    server.freeze()
    try:
        with pytest.raises(RedisFailure, match=r"within 0\.3 seconds") as caught:
            client.call("INCR", "n")
        assert caught.value.maybe_done
    finally:
        server.thaw()
    assert client.call("PING") == b"PONG"


def test_an_authority_that_is_not_trusted_is_told(
    certificates: Path, connect: Callable[..., Client], trusted: dict[str, Any]
) -> None:
    for options in ({}, {**trusted, "ssl_ca_certs": str(certificates / "other.pem")}):
        error = failure(connect(**options))
        assert "ssl_ca_certs" in str(error)
        assert error.misconfigured


def test_the_certificate_must_be_for_the_host(connect: Callable[..., Client], trusted: dict[str, Any]) -> None:
    error = failure(connect(host="127.0.0.1", **trusted))
    assert "host in the URL as the certificate names it" in str(error)
    assert connect(host="127.0.0.1", ssl_check_hostname=False, **trusted).call("PING") == b"PONG"
    unchecked = {**trusted, "ssl_cert_reqs": "none"}
    del unchecked["ssl_ca_certs"]
    assert connect(host="127.0.0.1", **unchecked).call("PING") == b"PONG"


def test_a_server_that_wants_a_certificate_says_so(connect: Callable[..., Client], trusted: dict[str, Any]) -> None:
    error = failure(connect(ssl_ca_certs=trusted["ssl_ca_certs"]))
    assert "ssl_certfile" in str(error)
    assert error.misconfigured


def test_tls_on_one_side_only_is_told(connect: Callable[..., Client], trusted: dict[str, Any]) -> None:
    assert "write redis://" in str(failure(connect(port="port", socket_connect_timeout=0.3, **trusted)))
    assert "rediss://" in str(failure(connect("redis")))


def test_a_file_that_does_not_exist_is_a_wrong_setting(connect: Callable[..., Client]) -> None:
    error = failure(connect(ssl_ca_certs="/nowhere/ca.pem"))
    assert "does not exist" in str(error)
    assert error.misconfigured
