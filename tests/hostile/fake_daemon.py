"""A BuildKit that builds nothing: it does what a test tells it to, and remembers what it was asked.

For failures that no real daemon can be made to show, and for checks of what goes over the wire. The
gRPC in it is grpcio's, in both roles; the bytes between it and whoever connects pass through
sockets of this module, which can be cut or spoilt.

    def build(solve: Solve) -> dict[str, str]:
        solve.tell(vertex("sha256:1", "step"))
        return {"containerimage.digest": "sha256:…"}

    with FakeDaemon(build) as daemon:
        Client(daemon.address).build(…)
    assert daemon.solves[0].frontend_attrs[…]
"""

import shutil
import socket
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from queue import SimpleQueue
from types import TracebackType
from typing import Any, NoReturn, Self

import grpc

from kitcache.buildkit.daemon.address import Address
from kitcache.buildkit.proto import control_pb2
from tests.hostile.build import digest_of
from tests.hostile.fake_messages import info, make_cache, workers
from tests.hostile.fake_session import EXPOSE, WAIT_S, Metadata, Session

CONTROL = "/moby.buildkit.v1.Control/"
HEALTH = "/grpc.health.v1.Health/Check"
_CHUNK_BYTES = 256 * 1024
_OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.so_reuseport", 0),
    ("grpc.use_local_subchannel_pool", 1),
]
Answer = Mapping[str, str] | bytes


class Solve:
    """One Solve under way, in a thread of its own.

    is_over: once the client has ended the call. keeps_status: Status goes on after Solve.
    """

    def __init__(self, daemon: "FakeDaemon", request: control_pb2.SolveRequest, context: Any):
        self.request = request
        self.daemon = daemon
        self.is_over = threading.Event()
        self.keeps_status = False
        self._context = context
        if not context.add_callback(self.is_over.set):
            self.is_over.set()

    @property
    def session(self) -> Session:
        """Waits for it."""
        return self.daemon.session(self.request.session)

    @property
    def store(self) -> str:
        """The store id of the first local cache export."""
        return f"local:{self.request.cache.exports[0].attrs['dest']}"

    def tell(self, *updates: control_pb2.StatusResponse | bytes) -> None:
        """Send news in Status, messages or what is none."""
        for update in updates:
            data = update if isinstance(update, bytes) else update.SerializeToString()
            self.daemon.news(self.request.ref).put(data)

    def end_status(self) -> None:
        """End Status before Solve."""
        self.daemon.news(self.request.ref).put(None)

    def wait(self) -> NoReturn:
        """Hang until the client gives up."""
        assert self.is_over.wait(WAIT_S), "the client never ended the Solve"
        raise EndedError

    def fail(self, code: grpc.StatusCode, message: str, details: bytes = b"") -> NoReturn:
        """End the Solve with a status. details: of grpc-status-details-bin."""
        if details:
            self._context.set_trailing_metadata((("grpc-status-details-bin", details),))
        self._context.abort(code, message)
        raise AssertionError

    def export_cache(self, *layers: bytes, without: bytes | None = None) -> None:
        """Upload a whole cache, but for one of its layers, to the first export."""
        manifest, config = make_cache(*layers)
        for layer in layers:
            if layer != without:
                self.session.upload(self.store, layer)
        for data in (config, manifest):
            self.session.upload(self.store, data, digest_of(data))


class EndedError(Exception):
    """The client has ended the call, and a script stops there."""


Script = Callable[[Solve], Answer]


def build_nothing(solve: Solve) -> Answer:
    """A build that succeeds at once."""
    return {}


class FakeDaemon:
    """Listens on a unix socket of its own until it is left. A context manager.

    script: what a Solve does and answers. is_engine: speaks the docker engine's two upgrades.
    missing: methods of Control that it does not know. answers: what others answer,
    whatever they are asked (None: nothing). solves, asked, sessions: what came.
    """

    def __init__(
        self,
        script: Script = build_nothing,
        *,
        is_engine: bool = False,
        missing: Iterable[str] = (),
        answers: Mapping[str, bytes | None] | None = None,
    ) -> None:
        self.solves: list[control_pb2.SolveRequest] = []
        self.asked: list[str] = []
        self.sessions: list[Session] = []
        self._script = script
        self._is_engine = is_engine
        self._missing = frozenset(missing)
        self._answers = dict(answers or {})
        self._state = threading.Condition()
        self._news: dict[str, SimpleQueue[bytes | None]] = {}
        self._sockets: list[socket.socket] = []
        self._channels: list[grpc.Channel] = []
        # Short: a socket's path has room for 107 bytes.
        self._directory = tempfile.mkdtemp(prefix="kitcache-fake-")
        self.path = f"{self._directory}/front"
        self._listener = socket.socket(socket.AF_UNIX)
        self._pool = ThreadPoolExecutor(32, thread_name_prefix="fake-grpc")
        self._server = grpc.server(self._pool, handlers=[_Methods(self)], options=_OPTIONS)

    @property
    def address(self) -> Address:
        """Where it is, for a Client."""
        return Address(f"unix://{self.path}", "the test", None, self._is_engine)

    def __enter__(self) -> Self:
        self._server.add_insecure_port(f"unix:{self._directory}/back")
        self._server.start()
        self._listener.bind(self.path)
        self._listener.listen()
        _start(self._accept)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        _shut(self._listener)
        self._listener.close()
        with self._state:
            for news in self._news.values():
                news.put(None)
        self.cut()
        for channel in self._channels:
            channel.close()
        self._server.stop(0).wait()
        self._pool.shutdown()
        shutil.rmtree(self._directory)

    # What a test does to it.

    def session(self, uuid: str) -> Session:
        """A session by its id; waits for it."""
        with self._state:
            found = self._state.wait_for(lambda: self._find_session(uuid), WAIT_S)
        assert found is not None, "no session was opened"
        return found

    def news(self, ref: str) -> "SimpleQueue[bytes | None]":
        """What Status of a build sends; None ends it."""
        with self._state:
            return self._news.setdefault(ref, SimpleQueue())

    def go_away(self) -> None:
        """GOAWAY: no further calls are taken, those under way go on."""
        self._server.stop(WAIT_S)

    def cut(self) -> None:
        """Every connection is lost at once."""
        with self._state:
            for sock in self._sockets:
                _shut(sock)

    def spoil(self, data: bytes = b"\xff" * 64) -> None:
        """Bytes that are no HTTP/2, to whoever is connected."""
        with self._state:
            for sock in self._sockets:
                with suppress(OSError):
                    sock.sendall(data)

    # Its own part.

    def _find_session(self, uuid: str) -> Session | None:
        wanted = (f"{EXPOSE}uuid", uuid)
        return next((s for s in self.sessions if wanted in s.metadata), None)

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            _start(self._serve, sock)

    def _serve(self, sock: socket.socket) -> None:
        with sock, suppress(OSError, ValueError):  # ValueError: grpcio's, once a channel is closed
            if not self._is_engine:
                self._join(sock, self._dial())
                return
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                byte = sock.recv(1)
                if not byte:
                    return
                head += byte
            lines = head.decode().splitlines()
            sock.sendall(b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
            if lines[0].startswith("POST /session "):
                pairs = (line.partition(": ")[::2] for line in lines[1:] if line)
                self._join(sock, self._call_back(tuple((k.lower(), v) for k, v in pairs)))
            else:
                self._join(sock, self._dial())

    def _join(self, front: socket.socket, back: socket.socket) -> None:
        """Copy both ways until either ends. front: the one that the client is at."""
        with self._state:
            self._sockets.append(front)
        with back:
            _start(_copy, front, back)
            _copy(back, front)
        with self._state:
            self._sockets.remove(front)

    def _dial(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.connect(f"{self._directory}/back")
        except OSError:
            sock.close()
            raise
        return sock

    def _call_back(self, metadata: Metadata) -> socket.socket:
        """A grpcio channel whose bytes come out of a socket: the session's other end."""
        with socket.socket(socket.AF_UNIX) as listener:
            with self._state:
                path = f"{self._directory}/session{len(self._channels)}"
                channel = grpc.insecure_channel(f"unix:{path}", options=_OPTIONS)
                self._channels.append(channel)
            listener.bind(path)
            listener.listen()
            listener.settimeout(WAIT_S)
            # A call makes grpcio connect, and BuildKit, too, begins with this one.
            channel.unary_unary(HEALTH).future(b"", timeout=WAIT_S)
            back, _ = listener.accept()
        with self._state:
            self.sessions.append(Session(metadata, channel))
            self._state.notify_all()
        return back

    def serve(self, method: str) -> Any:
        """grpcio's handler for a method."""
        self.asked.append(method)
        name = method.removeprefix(CONTROL)
        if name in self._missing:
            return None
        if name in self._answers:
            answer = self._answers[name]
            return grpc.stream_stream_rpc_method_handler(
                lambda _requests, _context: iter([] if answer is None else [answer])
            )
        match name:
            case "Solve":
                return grpc.unary_unary_rpc_method_handler(self._solve)
            case "Status":
                return grpc.unary_stream_rpc_method_handler(self._status)
            case "Session":
                return grpc.stream_stream_rpc_method_handler(self._session)
            case "Info":
                return grpc.unary_unary_rpc_method_handler(lambda _request, _context: info())
            case "ListWorkers":
                return grpc.unary_unary_rpc_method_handler(lambda _request, _context: workers())
        return None

    def _solve(self, data: bytes, context: Any) -> bytes:
        request = control_pb2.SolveRequest.FromString(data)
        self.solves.append(request)
        solve = Solve(self, request, context)
        try:
            answer = self._script(solve)
        except EndedError:
            return b""
        finally:
            if not solve.keeps_status:
                solve.end_status()
        if isinstance(answer, bytes):
            return answer
        return control_pb2.SolveResponse(exporter_response=dict(answer)).SerializeToString()

    def _status(self, data: bytes, context: Any) -> Iterator[bytes]:
        news = self.news(control_pb2.StatusRequest.FromString(data).ref)
        context.add_callback(lambda: news.put(None))
        yield from iter(news.get, None)

    def _session(self, messages: Iterator[bytes], context: Any) -> Iterator[bytes]:
        back = self._call_back(tuple((k, str(v)) for k, v in context.invocation_metadata()))
        context.add_callback(lambda: _shut(back))

        def feed() -> None:
            with suppress(OSError, grpc.RpcError):
                for message in messages:
                    back.sendall(control_pb2.BytesMessage.FromString(message).data)
            _shut(back)

        with back:
            _start(feed)
            with suppress(OSError):
                while data := back.recv(_CHUNK_BYTES):
                    yield control_pb2.BytesMessage(data=data).SerializeToString()


class _Methods(grpc.GenericRpcHandler):  # type: ignore[misc]
    def __init__(self, daemon: FakeDaemon) -> None:
        self._daemon = daemon

    def service(self, details: Any) -> Any:
        return self._daemon.serve(details.method)


def _start(target: Callable[..., None], *args: object) -> None:
    threading.Thread(target=target, args=args, name="fake-daemon", daemon=True).start()


def _copy(source: socket.socket, target: socket.socket) -> None:
    """Until the source ends; then both are over."""
    with suppress(OSError):
        while data := source.recv(_CHUNK_BYTES):
            target.sendall(data)
    _shut(source)
    _shut(target)


def _shut(sock: socket.socket) -> None:
    with suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
