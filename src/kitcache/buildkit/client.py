"""kitcache.Client: BuildKit from Python."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from queue import Empty, SimpleQueue
from threading import Event, Thread
from types import TracebackType
from typing import BinaryIO, Self, TypeVar
from weakref import finalize

from kitcache.buildkit.arguments import (
    StrPath,
    complete_request,
    pairs,
    parsed,
    path,
    settle,
    several,
    spell_attests,
    split_platforms,
)
from kitcache.buildkit.build import run_build
from kitcache.buildkit.daemon.address import Address, find_daemon, parse_address
from kitcache.buildkit.daemon.config import config_directory
from kitcache.buildkit.daemon.connect import TIMEOUT_S
from kitcache.buildkit.daemon.reconnect import Reconnector, check_process
from kitcache.buildkit.daemon.tlsconfig import TlsConfig
from kitcache.buildkit.daemoninfo import DaemonInfo, Worker, read_info, read_workers
from kitcache.buildkit.limit import check_seconds
from kitcache.buildkit.request import read_proxies
from kitcache.buildkit.result import BuildResult
from kitcache.buildkit.session.registry import Credentials
from kitcache.buildkit.status import BuildUpdate, OnUpdate
from kitcache.buildkit.wire.grpc import RpcError
from kitcache.buildkit.wire.rpc import Channel
from kitcache.buildkit.wishes import BuildOptions
from kitcache.errors import UsageError
from kitcache.options.attributes import Pairs
from kitcache.options.build import BuildRequest
from kitcache.options.caches import (
    CacheExport,
    CacheImport,
    parse_cache_export,
    parse_cache_import,
)
from kitcache.options.outputs import Output, parse_output
from kitcache.options.prunepolicy import PrunePolicy
from kitcache.options.secrets import Secret

Answer = TypeVar("Answer")
_Surroundings = tuple[Mapping[str, str] | None, Pairs]


def _no_surroundings() -> _Surroundings:
    """Return no environment, and no proxies."""
    return None, ()


class Client:
    """A BuildKit daemon: dockerd's own, or any buildkitd. A context manager.

    address: unix://PATH, tcp://HOST:PORT, docker-container://NAME, ssh://HOST and others; or an
    Address, as find_daemon(os.environ) gives it. timeout_s: for reaching the daemon, and for each
    call that is not a build; a build has its own. After the daemon was lost, the next call
    connects anew.

    Several threads may build at once. After `fork`, every call in the child raises NoDaemon of kind
    "forked"; closing the client there, or ending the child, does not touch the parent's builds.

    Raises UsageError for an address that means nothing, NoDaemon where no BuildKit answers.
    """

    def __init__(self, address: str | Address, *, timeout_s: float = TIMEOUT_S) -> None:
        if isinstance(address, str):
            address = parse_address(address, "the caller")
        self._daemon = Reconnector(address, check_seconds("timeout_s", timeout_s))
        # For those who forget: its threads would keep an unclosed connection alive.
        self._closing = finalize(self, self._daemon.close)
        self._surroundings: Callable[[], _Surroundings] = _no_surroundings

    @classmethod
    def from_env(
        cls,
        environ: Mapping[str, str],
        *,
        addr: str | None = None,
        builder: str | None = None,
        tls: TlsConfig | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> Self:
        """Return a client that finds in an environment what the command line finds there.

        That is the daemon (see find_daemon), the proxies of docker's config.json as build
        arguments, and the credentials of type=gha and type=s3. Raises as Client and find_daemon do.
        """
        address = find_daemon(environ, addr=addr, builder=builder, tls=tls)
        client = cls(address, timeout_s=timeout_s)
        found = environ, read_proxies(config_directory(environ), address.url)
        client._surroundings = lambda: found  # not a field: whoever shows a client shows no secret
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
        """End the connection; a build that still runs on it raises Cancelled. Idempotent."""
        self._closing()

    @property
    def address(self) -> Address:
        """Where the daemon is."""
        return self._daemon.last.address

    @property
    def is_engine(self) -> bool:
        """True for dockerd, which has images of its own; False for a buildkitd."""
        return self._daemon.last.is_engine

    def info(self) -> DaemonInfo:
        """The daemon's version. Raises NoDaemon."""
        return self._ask(read_info)

    def workers(self) -> tuple[Worker, ...]:
        """Where the daemon builds, and for which platforms. Raises NoDaemon."""
        return self._ask(read_workers)

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
        outputs: Output | str | Iterable[Output | str] = (),
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
        """Build a Dockerfile; returns once tags are published and resets are done.

        The words are those of `docker buildx build`. context: a directory, a URL that the daemon
        fetches, or "-" for stdin. outputs, cache_to, cache_from: values, or the text that the
        command line takes ("type=local,dest=cache,mode=max,reset=true"); one alone needs no list.
        attests: such as {"provenance": "mode=max"} or {"sbom": True}; False, "false" and
        "disabled=true" switch one off. Without outputs dockerd loads the image, and a buildkitd
        keeps the result in its own cache.

        on_update is called from this thread with each Update, on_notice with a sentence for what
        seems wrong (a mistyped attribute, a cache that cannot be imported). Set cancel from another
        thread to cancel on the daemon. credentials: the login for a registry's host; without it the
        daemon gets none. If it raises, and the build fails, its exception is the cause of what is
        raised here. prune_policy: which tags go after the export, from every local cache that is
        exported to; it implies reset=true. A limit that cannot be reached is told, and no failure.
        timeout_s: a build that takes longer is cancelled on the daemon, and raises Cancelled with
        this number as its timeout_s; so does one whose daemon does not answer. Without it a build
        may take any time. environ: where type=gha and type=s3 find credentials that are not given,
        as on the command line; default: that of from_env, else none. allow: entitlements, as
        --allow takes them, such as "buildx.local.delete" for an output with mode=delete outside of
        the current directory.

        Raises BuildFailed, NoDaemon, UsageError, Cancelled, and for the caches NotACache, Unsafe,
        Damaged, Busy, KitcacheError. The daemon gets what was named here and nothing else. However
        a build ends, what the tags of a cache reach is there.
        """
        places = pairs("build_contexts", build_contexts)
        request = BuildRequest(
            context=path("context", context),
            dockerfile=None if dockerfile is None else path("dockerfile", dockerfile),
            target=target,
            build_args=pairs("build_args", build_args),
            labels=pairs("labels", labels),
            platforms=split_platforms(platforms),
            no_cache=no_cache,
            pull=pull,
            build_contexts=tuple((name, path("build_contexts", at)) for name, at in places),
            network=network,
            secrets=several("secrets", secrets),
            tags=several("tags", tags),
            outputs=parsed("outputs", outputs, parse_output),
            cache_to=parsed("cache_to", cache_to, parse_cache_export),
            cache_from=parsed("cache_from", cache_from, parse_cache_import),
            attests=spell_attests(attests),
            allow=several("allow", allow),
        )
        if environ is not None:
            request = complete_request(settle(request), environ)
        nobody = BuildOptions()
        wishes = BuildOptions(
            on_update=on_update or nobody.on_update,
            on_notice=on_notice or nobody.on_notice,
            cancel=cancel,
            credentials=credentials or nobody.credentials,
            stdin=stdin,
            prune_policy=prune_policy,
            timeout_s=timeout_s,
        )
        return self.run(request, wishes)

    def run(self, request: BuildRequest, wishes: BuildOptions) -> BuildResult:
        """The same, for a request that is there already."""
        with self._daemon.connection() as connection:
            environ, proxies = self._surroundings()
            wishes = wishes._replace(proxy_args=wishes.proxy_args or proxies)
            return run_build(connection, request, wishes, environ)

    def start(self, request: BuildRequest, wishes: BuildOptions) -> "RunningBuild":
        """The same, in a thread of its own: a Build to follow, cancel, and wait for."""
        return RunningBuild(self, request, wishes)

    def _ask(self, question: Callable[[Channel], Answer]) -> Answer:
        with self._daemon.connection() as connection:
            try:
                return question(connection.channel)
            except RpcError as error:
                if connection.channel.is_alive:
                    raise connection.unanswered(error) from None
        # It may have been restarted since the last call, and that was not yet known.
        with self._daemon.connection() as connection:
            try:
                return question(connection.channel)
            except RpcError as error:
                raise connection.unanswered(error) from None


class RunningBuild:
    """A build under way. Iterate over it for its updates; `result` is what it came to."""

    def __init__(self, client: Client, request: BuildRequest, wishes: BuildOptions) -> None:
        self._cancel = wishes.cancel or Event()
        self._pid = os.getpid()
        self._address = client.address
        self._updates: SimpleQueue[BuildUpdate | None] = SimpleQueue()
        self._on_update = wishes.on_update
        self._result: BuildResult | None = None
        self._error: BaseException | None = None
        self._is_over = False
        self._is_iterated = False
        self._ended = Event()
        wishes = wishes._replace(on_update=self._hear, cancel=self._cancel)
        self._thread = Thread(
            target=self._run, args=(client, request, wishes), name="kitcache-build", daemon=True
        )
        self._thread.start()

    def __iter__(self) -> Iterator[BuildUpdate]:
        """Iterate over the updates; at the end of a build that failed, raise as `result` does.

        Each update comes once, so a second iterator is a UsageError.
        """
        if self._is_iterated:
            raise UsageError(
                "the updates of this build are iterated over already",
                hints=("collect them in a list, or give Wishes an on_update",),
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
        """Whether every update has been had."""
        return self._is_over

    def next_update(self, timeout_s: float | None = None) -> BuildUpdate | None:
        """The next update; None where none came in time, and once the build is over."""
        check_process(self._pid, self._address)
        bound_s = None if timeout_s is None else check_seconds("timeout_s", timeout_s)
        if self._is_over:
            return None
        try:
            update = self._updates.get(timeout=bound_s)
        except Empty:
            return None
        self._is_over = update is None
        return update

    def cancel(self) -> None:
        """Cancel it on the daemon; `result` then raises Cancelled. From any thread."""
        check_process(self._pid, self._address)
        self._cancel.set()

    def done(self) -> bool:
        """Return True if the build has ended, so that `result` does not wait."""
        check_process(self._pid, self._address)
        return self._ended.is_set()

    def result(self, timeout_s: float | None = None) -> BuildResult:
        """Wait for the end. Raises what Client.build raises; TimeoutError if it ends not in time.

        A build goes on after a TimeoutError.
        """
        check_process(self._pid, self._address)
        bound_s = None if timeout_s is None else check_seconds("timeout_s", timeout_s)
        if not self._ended.wait(bound_s):
            raise TimeoutError(f"the build has not ended after {timeout_s:g} s; it goes on")
        self._thread.join()
        if self._error is not None:
            raise self._error
        if self._result is None:
            raise RuntimeError("the build has no result")
        return self._result

    def _hear(self, update: BuildUpdate) -> None:
        self._updates.put(update)
        self._on_update(update)

    def _run(self, client: Client, request: BuildRequest, wishes: BuildOptions) -> None:
        try:
            self._result = client.run(request, wishes)
        except BaseException as error:  # noqa: BLE001 - `result` raises it
            self._error = error
        finally:
            self._ended.set()
            self._updates.put(None)
