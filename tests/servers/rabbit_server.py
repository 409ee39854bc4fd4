"""A private RabbitMQ: one node with a name, ports, data and an epmd of its own; `evaluate` asks it in milliseconds."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import urllib.parse
from typing import ClassVar, Self

from tests.servers.install import program
from tests.servers.process import Server, ServerFailedError, end_process, free_port

#: Given to the node at its start: it takes "token expression." lines and answers each with what Erlang makes of it.
#: rabbitmqctl would need a second of this machine for the same.
LISTENER = """
Token = <<"%(token)s">>,
Ask = fun(Text) ->
    {ok, Words, _} = erl_scan:string(Text),
    {ok, Expressions} = erl_parse:parse_exprs(Words),
    {value, Value, _} = erl_eval:exprs(Expressions, []),
    Value
end,
Serve = fun(Socket) ->
    case gen_tcp:recv(Socket, 0, 5000) of
        {ok, Line} ->
            [Given, Text] = binary:split(Line, <<" ">>),
            Given = Token,
            Answer = try Ask(binary_to_list(Text)) of
                Value -> {ok, Value}
            catch
                Class:Reason -> {Class, Reason}
            end,
            gen_tcp:send(Socket, io_lib:format("~0tp~n", [Answer]));
        _ -> ok
    end,
    gen_tcp:close(Socket)
end,
Loop = fun Loop(Listening) ->
    {ok, Socket} = gen_tcp:accept(Listening),
    Pid = spawn(fun() -> receive go -> Serve(Socket) end end),
    gen_tcp:controlling_process(Socket, Pid),
    Pid ! go,
    Loop(Listening)
end,
spawn(fun() ->
    {ok, Listening} = gen_tcp:listen(%(port)d, [binary, {packet, line}, {buffer, 1048576}, {active, false},
        {reuseaddr, true}, {ip, {127, 0, 0, 1}}]),
    Loop(Listening)
end).
"""


class RabbitAddress:
    """A running RabbitMQ of the tests, whoever started it."""

    def __init__(self, port: int, question_port: int, token: str) -> None:
        self.port = port
        self.question_port = question_port
        self.token = token

    @property
    def url(self) -> str:
        """Address of the default virtual host."""
        return self.url_for("/")

    def url_for(self, vhost: str = "/") -> str:
        """Address of a virtual host."""
        return f"amqp://guest:guest@127.0.0.1:{self.port}/{urllib.parse.quote(vhost, safe='')}"

    def fresh_url(self) -> str:
        """Make a virtual host and give its address."""
        name = f"v{secrets.token_hex(6)}"
        self.add_vhost(name)
        return self.url_for(name)

    def add_vhost(self, name: str) -> None:
        """Make a virtual host that guest may use."""
        self.evaluate(
            f'ok = rabbit_vhost:add(<<"{name}">>, <<"tests">>), '
            f'ok = rabbit_auth_backend_internal:set_permissions(<<"guest">>, <<"{name}">>, '
            '<<".*">>, <<".*">>, <<".*">>, <<"tests">>).'
        )

    def remove_vhost(self, name: str) -> None:
        """Remove a virtual host with all that is in it."""
        self.evaluate(f'rabbit_vhost:delete(<<"{name}">>, <<"tests">>).')

    def evaluate(self, expression: str, seconds: float = 20.0) -> str:
        """Let the node evaluate an Erlang expression (one line, ended by a dot); gives the value as Erlang prints it.

        Raises `ServerFailedError` when Erlang raises, OSError when the node does not answer.
        """
        with socket.create_connection(("127.0.0.1", self.question_port), timeout=seconds) as connection:
            connection.sendall(f"{self.token} {expression}\n".encode())
            with connection.makefile("r", encoding="utf-8") as answer:
                said = answer.read().strip()
        if not said.startswith("{ok,"):
            raise ServerFailedError(f"RabbitMQ refused {expression}: {said or 'no answer'}")
        return said.removeprefix("{ok,").removesuffix("}")


class RabbitServer(RabbitAddress, Server):
    """One RabbitMQ node. Keyword arguments are lines of rabbitmq.conf, with `__` for `.`: `consumer_timeout="9000"`."""

    START_SECONDS: ClassVar[float] = 80.0

    def __init__(self, *, schedulers: str = "1:1", **settings: object) -> None:
        Server.__init__(self)
        RabbitAddress.__init__(self, self.port, free_port(), secrets.token_hex(16))
        self.epmd_port, self.distribution_port = free_port(), free_port()
        self.schedulers = schedulers
        self.settings: dict[str, str] = {
            "listeners.tcp.1": f"127.0.0.1:{self.port}",
            "log.console": "true",
            "log.console.level": "warning",
            "log.file": "false",
            # Tests publish a lot at once and the machine may be full: neither is what is under test.
            "disk_free_limit.absolute": "1MB",
        }
        self.settings |= {name.replace("__", "."): str(value) for name, value in settings.items()}
        self._epmd: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        """Start it and return when it takes connections and questions. Raises `ServerFailedError` with its log."""
        if self._epmd is None or self._epmd.poll() is not None:
            epmd = ["epmd", "-port", str(self.epmd_port), "-address", "127.0.0.1"]
            self._epmd = self._spawn(epmd, dict(os.environ))
        lines = "".join(f"{name} = {value}\n" for name, value in self.settings.items())
        (self.folder / "rabbitmq.conf").write_text(lines)
        (self.folder / "enabled_plugins").write_text("[].\n")
        return Server.start(self)

    def close(self) -> None:
        """Kill it and remove its folder."""
        if self._epmd is not None:
            end_process(self._epmd, signal.SIGKILL, 5)
            self._epmd = None
        Server.close(self)

    def command(self) -> list[str]:
        """What to run."""
        listener = " ".join((LISTENER % {"token": self.token, "port": self.question_port}).split())
        return [program("rabbitmq-server") or "rabbitmq-server", "-eval", listener]

    def environment(self) -> dict[str, str]:
        """A node that shares nothing with another of this machine, and does not depend on the host's name."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("RABBITMQ_")}
        folder = str(self.folder)
        return kept | {
            "HOME": folder,
            "ERL_EPMD_PORT": str(self.epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            # The script then becomes the server, instead of standing between it and its signals.
            "RUNNING_UNDER_SYSTEMD": "true",
            "RABBITMQ_NODENAME": "umbel@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self.distribution_port),
            "RABBITMQ_MNESIA_BASE": f"{folder}/data",
            "RABBITMQ_LOG_BASE": f"{folder}/log",
            "RABBITMQ_CONFIG_FILE": f"{folder}/rabbitmq",
            "RABBITMQ_CONF_ENV_FILE": f"{folder}/none",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{folder}/enabled_plugins",
            "RABBITMQ_GENERATED_CONFIG_DIR": f"{folder}/config",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": f"-start_epmd false +S {self.schedulers}",
        }

    def answers(self) -> bool:
        """Tell whether AMQP and the questions are answered and the node has finished booting."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=2) as connection:
            connection.sendall(b"AMQP\x00\x00\x09\x01")
            if not connection.recv(8):
                return False
        return self.evaluate("rabbit:is_running().") == "true"
