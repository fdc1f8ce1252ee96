"""kitcache.Client: BuildKit from Python."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from queue import Empty, SimpleQueue
from threading import Event, Thread
from types import TracebackType
from typing import BinaryIO, Self, TypeVar, cast
from weakref import finalize

from kitcache.buildkit.arguments import (
    StrPath,
    as_tuple,
    check_values,
    spell_attests,
    split_platforms,
)
from kitcache.buildkit.build import run_build
from kitcache.buildkit.buildoptions import BuildOptions
from kitcache.buildkit.daemon.address import Address, find_daemon, parse_address
from kitcache.buildkit.daemon.config import config_directory
from kitcache.buildkit.daemon.connect import TIMEOUT_S
from kitcache.buildkit.daemon.reconnect import Reconnector, check_process
from kitcache.buildkit.daemon.tlsconfig import TlsConfig
from kitcache.buildkit.daemoninfo import DaemonInfo, Worker, read_info, read_workers
from kitcache.buildkit.request import check_request, read_proxies
from kitcache.buildkit.result import BuildResult
from kitcache.buildkit.session.registry import Credentials
from kitcache.buildkit.status import BuildUpdate, OnUpdate
from kitcache.buildkit.wire.grpc import RpcError
from kitcache.buildkit.wire.rpc import Channel
from kitcache.errors import UsageError
from kitcache.options.argumenttypes import checked
from kitcache.options.attributes import Pairs
from kitcache.options.build import BuildRequest
from kitcache.options.caches import CacheExport, CacheImport
from kitcache.options.outputs import Output
from kitcache.options.prunepolicy import PrunePolicy
from kitcache.options.secrets import Secret

Answer = TypeVar("Answer")


class Client:
    """A connection to a BuildKit daemon: dockerd's own, or any buildkitd. A context manager.

    Several threads may build at once. If the daemon was lost, the next call connects again. After
    `fork`, every call in the child raises NoDaemon of kind "forked"; if the child closes the
    client or ends, builds of the parent continue.

    Args:
        address: unix://PATH, tcp://HOST:PORT, docker-container://NAME, ssh://HOST, …, or
            an Address, as find_daemon(os.environ) returns it.
        timeout_s: Limit for connecting and for each call except a build, in seconds.

    Raises:
        UsageError: The address is invalid.
        NoDaemon: No BuildKit answers there.
    """

    @checked
    def __init__(self, address: str | Address, *, timeout_s: float = TIMEOUT_S) -> None:
        if isinstance(address, str):
            address = parse_address(address, "the caller")
        self._daemon = Reconnector(address, timeout_s)
        # Close the connection with the client: its threads would keep it alive forever.
        self._closing = finalize(self, self._daemon.close)
        # Environment and proxies are in a closure, so that vars(client) shows no secret.
        self._surroundings: Callable[[], tuple[Mapping[str, str] | None, Pairs]]
        self._surroundings = lambda: (None, ())

    @classmethod
    @checked
    def from_env(
        cls,
        environ: Mapping[str, str],
        *,
        addr: str | None = None,
        builder: str | None = None,
        tls: TlsConfig | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> Self:
        """Return a client that uses an environment as the command line does.

        It finds the daemon there (see find_daemon), the proxies of docker's config.json as build
        arguments, and the credentials of type=gha and type=s3. Raises as Client and find_daemon.
        """
        address = find_daemon(environ, addr=addr, builder=builder, tls=tls)
        client = cls(address, timeout_s=timeout_s)
        surroundings = environ, read_proxies(config_directory(environ), address.url)
        client._surroundings = lambda: surroundings
        return client

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection. A running build then raises Cancelled. Idempotent."""
        self._closing()

    @property
    def address(self) -> Address:
        """The daemon's address."""
        return self._daemon.last.address

    @property
    def is_engine(self) -> bool:
        """True for dockerd, which stores images; False for a buildkitd."""
        return self._daemon.last.is_engine

    def info(self) -> DaemonInfo:
        """Return the daemon's version. Raises NoDaemon."""
        return self._ask(read_info)

    def workers(self) -> tuple[Worker, ...]:
        """Return the daemon's workers with their platforms. Raises NoDaemon."""
        return self._ask(read_workers)

    @checked
    def build(
        self,
        context: StrPath = ".",
        *,
        dockerfile: StrPath | None = None,
        target: str = "",
        build_args: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
        platforms: str | Iterable[str] = (),
        no_cache: bool = False,
        pull: bool = False,
        build_contexts: Mapping[str, StrPath] | None = None,
        network: str = "default",
        secrets: Secret | Iterable[Secret] = (),
        tags: str | Iterable[str] = (),
        outputs: Output | StrPath | Iterable[Output | StrPath] = (),
        cache_to: CacheExport | str | Iterable[CacheExport | str] = (),
        cache_from: CacheImport | str | Iterable[CacheImport | str] = (),
        attests: Mapping[str, str | bool] | None = None,
        on_update: OnUpdate | None = None,
        on_notice: Callable[[str], object] | None = None,
        cancel: Event | None = None,
        credentials: Callable[[str], Credentials | None] | None = None,
        stdin: BinaryIO | None = None,
        prune_policy: PrunePolicy | None = None,
        timeout_s: float | None = None,
        environ: Mapping[str, str] | None = None,
        allow: str | Iterable[str] = (),
    ) -> BuildResult:
        """Build a Dockerfile, publish the tags and reset the caches; then return the result.

        Names are those of `docker buildx build`. The daemon gets only the files that the arguments
        name. Even if the build fails, every blob that the tags of a cache reach is kept.

        Args:
            context: A directory, a URL that the daemon fetches, or "-" for stdin.
            outputs: Values, texts as on the command line, or the Path of a directory. Without
                outputs, dockerd stores the image, and a buildkitd keeps the result in its own
                cache.
            cache_to: Values, or texts such as "type=local,dest=cache,mode=max,reset=true".
            attests: Such as {"provenance": "mode=max", "sbom": True}. False, "false" and
                "disabled=true" disable one.
            on_update: Called from this thread with each BuildUpdate.
            on_notice: Called with a sentence for each probable mistake, such as a mistyped
                attribute or a cache that cannot be imported.
            cancel: Set it in another thread to cancel the build on the daemon.
            credentials: Returns the login for a registry's host. If it raises and the build
                fails, its exception is the cause of the build's.
            prune_policy: Selects the tags to remove, after the export, from every local cache that
                is exported to; implies reset=true. A limit that cannot be reached is a notice.
            timeout_s: After this many seconds the build is cancelled and raises Cancelled with this
                timeout_s, also if the daemon does not answer. None for no limit.
            environ: The variables for missing credentials of type=gha and type=s3. Default: the
                environment of from_env, else no variables.
            allow: Entitlements, such as "buildx.local.delete" for an output with mode=delete
                outside of the current directory.

        Raises:
            BuildFailed, NoDaemon, UsageError, Cancelled: The build was not done.
            NotACache, Unsafe, Damaged, Busy, KitcacheError: A cache cannot be used.
        """
        contexts = (build_contexts or {}).items()
        request = BuildRequest(
            context=os.fspath(context),
            dockerfile=None if dockerfile is None else os.fspath(dockerfile),
            target=target,
            build_args=tuple((build_args or {}).items()),
            labels=tuple((labels or {}).items()),
            platforms=split_platforms(platforms),
            no_cache=no_cache,
            pull=pull,
            build_contexts=tuple((name, os.fspath(place)) for name, place in contexts),
            network=network,
            secrets=as_tuple(secrets),
            tags=as_tuple(tags),
            outputs=cast("tuple[Output, ...]", as_tuple(outputs)),
            cache_to=cast("tuple[CacheExport, ...]", as_tuple(cache_to)),
            cache_from=cast("tuple[CacheImport, ...]", as_tuple(cache_from)),
            attests=spell_attests(attests or {}),
            allow=as_tuple(allow),
        )
        default = BuildOptions()
        options = BuildOptions(
            on_update=on_update or default.on_update,
            on_notice=on_notice or default.on_notice,
            cancel=cancel,
            credentials=credentials or default.credentials,
            stdin=stdin,
            prune_policy=prune_policy,
            timeout_s=timeout_s,
        )
        return self._run(request, options, environ)

    @checked
    def run(self, request: BuildRequest, options: BuildOptions) -> BuildResult:
        """Build as `build` does, with a request as a value. Raises as `build`."""
        return self._run(request, options)

    def _run(
        self,
        request: BuildRequest,
        options: BuildOptions,
        environ: Mapping[str, str] | None = None,
    ) -> BuildResult:
        surroundings, proxies = self._surroundings()
        environ = surroundings if environ is None else environ
        checked_request = check_request(check_values(request), environ)
        options = options._replace(proxy_args=options.proxy_args or proxies)
        with self._daemon.connection() as connection:
            return run_build(connection, checked_request, options)

    @checked
    def start(self, request: BuildRequest, options: BuildOptions) -> "RunningBuild":
        """Build as `run` does, in a thread; return the running build to follow or cancel it."""
        return RunningBuild(self, request, options)

    def _ask(self, question: Callable[[Channel], Answer], *, may_retry: bool = True) -> Answer:
        with self._daemon.connection() as connection:
            try:
                return question(connection.channel)
            except RpcError as error:
                if connection.channel.is_alive or not may_retry:
                    raise connection.unanswered(error) from None
        # The daemon may have restarted since the last call.
        return self._ask(question, may_retry=False)


class RunningBuild:
    """A build in a thread. Iterate over it for its updates; `result` waits for its end."""

    def __init__(self, client: Client, request: BuildRequest, options: BuildOptions) -> None:
        self._cancel = options.cancel or Event()
        self._pid = os.getpid()
        self._address = client.address
        self._updates: SimpleQueue[BuildUpdate | None] = SimpleQueue()
        self._on_update = options.on_update
        self._result: BuildResult | None = None
        self._error: BaseException | None = None
        self._is_over = False
        self._is_iterated = False
        self._ended = Event()
        options = options._replace(on_update=self._put_update, cancel=self._cancel)
        self._thread = Thread(
            target=self._run, args=(client, request, options), name="kitcache-build", daemon=True
        )
        self._thread.start()

    def __iter__(self) -> Iterator[BuildUpdate]:
        """Return an iterator over the updates. At the end it raises as `result` does.

        Raises:
            UsageError: There is an iterator already. Each update is delivered only once.
        """
        if self._is_iterated:
            raise UsageError(
                "the updates of this build are iterated over already",
                hints=("collect them in a list, or give BuildOptions an on_update",),
            )
        self._is_iterated = True
        return self._iterate()

    def _iterate(self) -> Iterator[BuildUpdate]:
        while not self._is_over:
            update = self.next_update()
            if update is not None:
                yield update
        self.result()

    @property
    def is_over(self) -> bool:
        """True once the last update was delivered."""
        return self._is_over

    @checked
    def next_update(self, timeout_s: float | None = None) -> BuildUpdate | None:
        """Return the next update; None after the timeout, in seconds, and after the last update."""
        check_process(self._pid, self._address)
        if self._is_over:
            return None
        try:
            update = self._updates.get(timeout=timeout_s)
        except Empty:
            return None
        self._is_over = update is None
        return update

    def cancel(self) -> None:
        """Cancel the build on the daemon; `result` then raises Cancelled. Thread-safe."""
        check_process(self._pid, self._address)
        self._cancel.set()

    def done(self) -> bool:
        """Return True if the build has ended, so that `result` does not wait."""
        check_process(self._pid, self._address)
        return self._ended.is_set()

    @checked
    def result(self, timeout_s: float | None = None) -> BuildResult:
        """Wait for the end and return the result. Raises as Client.build.

        Args:
            timeout_s: Seconds to wait; None for no limit.

        Raises:
            TimeoutError: The build has not ended in time. It continues.
        """
        check_process(self._pid, self._address)
        if not self._ended.wait(timeout_s):
            raise TimeoutError(f"the build has not ended after {timeout_s:g} s; it continues")
        self._thread.join()
        if self._error is not None:
            raise self._error
        if self._result is None:
            raise RuntimeError("the build has no result")
        return self._result

    def _put_update(self, update: BuildUpdate) -> None:
        self._updates.put(update)
        self._on_update(update)

    def _run(self, client: Client, request: BuildRequest, options: BuildOptions) -> None:
        try:
            self._result = client.run(request, options)
        except BaseException as error:  # noqa: BLE001 - `result` raises it
            self._error = error
        finally:
            self._ended.set()
            self._updates.put(None)
