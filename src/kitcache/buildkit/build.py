"""One build, from the request to the result.

Order: locks and checks, the session, the Solve; after its success the tags, then the resets.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import chain

from kitcache.buildkit.abilities import Abilities
from kitcache.buildkit.buildoptions import BuildOptions
from kitcache.buildkit.caches import Caches, open_caches
from kitcache.buildkit.daemon.connect import DaemonConnection
from kitcache.buildkit.exporters import Exporter
from kitcache.buildkit.history import read_provenance
from kitcache.buildkit.limit import Limit
from kitcache.buildkit.log import log_calls, log_solve
from kitcache.buildkit.logins import Logins
from kitcache.buildkit.masks import Mask, make_mask
from kitcache.buildkit.proto import control_pb2
from kitcache.buildkit.request import LOCAL_DELETE, CacheEntry, CheckedRequest, frontend_attrs
from kitcache.buildkit.result import (
    BuildResult,
    decode_response,
    find_image_id,
    known_digest,
)
from kitcache.buildkit.session.serve import make_handlers, make_metadata
from kitcache.buildkit.session.walk import identity
from kitcache.buildkit.sharedkey import make_shared_key
from kitcache.buildkit.solve import Solved, solve
from kitcache.buildkit.solveerror import build_failed, login_hints
from kitcache.buildkit.sources import SessionSources, open_sources
from kitcache.buildkit.status import BuildUpdate, BuildWarning
from kitcache.buildkit.steps import StepTracker
from kitcache.buildkit.targets import LayoutTarget, Targets, expect_kept, open_targets
from kitcache.buildkit.wire.grpc import Code, RpcError
from kitcache.errors import Cancelled, KitcacheError, NoDaemon, UsageError, printable
from kitcache.options.caches import NOTHING_TO_SWEEP, RESET_KINDS
from kitcache.upkeep.jobcaches import LockedCaches, LockOptions

_FRONTEND = "dockerfile.v0"
_REF_LENGTH = 25
# The time for outputs to delete incomplete files. A write to a pipe may end later.
_CLEAN_UP_S = 2.0
_IMPORTING = "importing cache manifest from "
_UNTOUCHED = "no tag was changed; caches may contain new blobs"


def run_build(
    connection: DaemonConnection, request: CheckedRequest, options: BuildOptions
) -> BuildResult:
    """Build on the daemon. Guarantees and errors are those of Client.build."""
    return _Build(connection, request, options).run()


class _Build:
    def __init__(
        self, connection: DaemonConnection, checked: CheckedRequest, options: BuildOptions
    ) -> None:
        self._cancel = Limit(options.cancel, options.timeout_s)
        bound_s = options.timeout_s
        # At least 0.1 s, so that the request to cancel can reach the daemon.
        self._connection = connection if bound_s is None else connection.within(max(bound_s, 0.1))
        self._checked = checked
        self._request = checked.request
        self._options = options
        self._steps = StepTracker()
        self._mask = Mask()
        self._warnings: list[BuildWarning] = []
        self._notices: list[str] = []
        self._failures: list[KitcacheError] = []
        self._session_failure: str | None = None
        self._ref = os.urandom(_REF_LENGTH).hex()[:_REF_LENGTH]
        self._logins = Logins(options.credentials, self._notice, self._ref)

    def run(self) -> BuildResult:
        try:
            return self._run()
        except (Cancelled, NoDaemon) as error:
            is_silent = isinstance(error, NoDaemon) and error.kind == "unreachable"
            if not self._cancel.is_late or not (is_silent or isinstance(error, Cancelled)):
                raise
            raise Cancelled(
                error.path,
                problem=f"the build took longer than {self._cancel.timeout_s:g} s: {error.problem}",
                effect=error.effect,
                timeout_s=self._cancel.timeout_s,
            ) from error

    def _notice_warnings(self) -> None:
        """Report the warnings about the request itself."""
        request = self._request
        groups = [export.warnings for export in request.cache_to]
        groups += [output.warnings for output in request.outputs]
        groups += [request.warnings]
        groups += [source.warnings for source in request.cache_from]
        for sentence in chain.from_iterable(groups):
            self._notice(sentence)
        if self._options.prune_policy is not None and not any(
            export.kind in RESET_KINDS for export in request.cache_to
        ):
            self._notice(f"the policy applies to no cache: {NOTHING_TO_SWEEP}")

    def _run(self) -> BuildResult:
        self._notice_warnings()
        with ExitStack() as stack:
            sources = open_sources(self._request, self._options.stdin, stack, self._wait_for)
            exporters = self._checked.exporters(is_engine=self._connection.is_engine)
            if not exporters and not self._request.outputs:
                self._notice(
                    "no output was requested, so the result is only in the daemon's build cache"
                )
            abilities = Abilities(self._connection)
            abilities.check(self._checked, exporters)
            has_containerd_images = abilities.has_containerd_images(exporters)
            lock_options = LockOptions(
                self._options.lock_timeout_s, self._options.on_progress, self._notice, self._cancel
            )
            locked = LockedCaches(lock_options, stack, "nothing was built")
            targets = open_targets(
                exporters,
                self._options.stdout,
                locked,
                stack,
                may_delete_anywhere=LOCAL_DELETE in self._request.allow,
            )
            caches = stack.enter_context(
                open_caches(
                    self._request.cache_to,
                    self._request.cache_from,
                    lock_options,
                    self._options.prune_policy,
                    locked,
                )
            )
            _check_tags(targets.layout, caches)
            _check_contexts(sources, caches)
            expect_kept(targets, locked)
            with _checking_utf8():
                message = self._message(sources, exporters, caches, abilities)
            self._mask = make_mask(message)
            solved = self._solve(sources, targets, caches, message)
            try:
                response = self._expect_success(solved, targets, caches)
            except KitcacheError as error:
                raise error from (error.__cause__ or self._logins.failure)
            self._notice_failed_imports()
            targets.publish(response, lock_options)
            failed = {step.name: step.error for step in self._steps.steps if step.state == "error"}
            results = caches.publish(response, failed)
            is_in_containerd = has_containerd_images or targets.is_loaded_into_containerd
        provenance: Mapping[str, object] = {}
        if any(kind == "provenance" for kind, _ in self._request.attests):
            provenance = self._mask.value(read_provenance(self._connection.channel, self._ref))
        return BuildResult(
            ref=self._ref,
            digest=known_digest(response.get("containerimage.digest")),
            image_id=find_image_id(response, is_in_containerd=is_in_containerd),
            metadata=self._mask.value(decode_response(response)),
            caches=results,
            warnings=tuple(self._warnings),
            notices=tuple(self._notices),
            logins=tuple(sorted(self._logins.sent)),
            provenance=provenance,
        )

    def _wait_for(self, pipe: str) -> None:
        self._notice(f"waiting for the pipe {pipe}")
        if self._cancel.is_set():
            raise Cancelled("", effect="nothing was built")

    def _notice(self, sentence: str) -> None:
        sentence = self._mask.text(sentence)
        if sentence not in self._notices:
            self._notices.append(sentence)
            self._options.on_notice(sentence)

    def _notice_failed_imports(self) -> None:
        for step in self._steps.steps:
            if step.state == "error" and step.name.startswith(_IMPORTING):
                hints = login_hints(step.error, self._logins.asked)
                problem = f"{step.name} failed, so it was not used: {step.error}"
                self._notice("; ".join((problem, *hints)))

    def _on_masked_update(self, update: BuildUpdate) -> None:
        self._steps.apply(update)
        self._warnings += update.warnings
        self._options.on_update(update)

    def _message(
        self,
        sources: SessionSources,
        exporters: tuple[Exporter, ...],
        caches: Caches,
        abilities: Abilities,
    ) -> control_pb2.SolveRequest:
        message = control_pb2.SolveRequest(
            ref=self._ref,
            session=os.urandom(16).hex(),
            frontend=_FRONTEND,
            frontend_attrs=frontend_attrs(
                self._checked,
                sources.inputs,
                is_engine=self._connection.is_engine,
                cache_imports=caches.import_entries,
                host_gateway=abilities.host_gateway(self._checked),
                proxies=self._options.proxy_args,
            ),
            entitlements=self._checked.entitlements,
            exporters=[
                control_pb2.Exporter(type=exporter.kind, attrs=dict(exporter.attrs))
                for exporter in exporters
            ],
            cache=control_pb2.CacheOptions(
                exports=_entries(caches.export_entries), imports=_entries(caches.import_entries)
            ),
        )
        if exporters:  # For daemons before BuildKit 0.13.
            message.exporter_deprecated = exporters[0].kind
            message.exporter_attrs_deprecated.update(dict(exporters[0].attrs))
        return message

    def _solve(
        self,
        sources: SessionSources,
        targets: Targets,
        caches: Caches,
        message: control_pb2.SolveRequest,
    ) -> Solved:
        handlers = make_handlers(
            sources=sources.sources,
            excluded=caches.left_out,
            uploads=sources.uploads,
            files=targets.files,
            stores={**caches.stores, **targets.stores, **sources.stores},
            secrets=sources.secrets,
            credentials=self._logins.find,
            on_notice=self._notice,
            on_failure=self._failures.append,
        )
        key = make_shared_key(sources.directories)
        metadata = make_metadata(message.session, key, handlers)
        log_solve(message, self._connection.address.url, sources.sources, self._request.secrets)
        server = self._connection.open_session(metadata, log_calls(handlers, self._ref))
        try:
            solved = solve(
                self._connection.channel,
                message,
                lambda update: self._on_masked_update(self._mask.update(update)),
                self._cancel,
            )
            if (rest := self._mask.rest()).logs:
                self._on_masked_update(rest)
            return solved
        except RpcError as error:
            if error.code == Code.DEADLINE_EXCEEDED:
                raise self._connection.unanswered(error) from None
            return Solved(None, error)
        finally:
            self._session_failure = server.failure
            server.close()
            if targets.files:
                server.wait_idle(_CLEAN_UP_S)

    def _expect_success(self, solved: Solved, targets: Targets, caches: Caches) -> dict[str, str]:
        if solved.response is not None:
            return solved.response
        error = solved.error or RpcError(
            Code.INTERNAL, "the daemon ended the build without an error"
        )
        is_lost = not self._connection.channel.is_alive
        if solved.is_cancelled:
            if solved.is_confirmed and not is_lost:
                raise _cancelled("the build was cancelled on the daemon")
            raise _cancelled("the daemon was asked to cancel the build")
        if is_lost and error.code == Code.CANCELLED:
            raise _cancelled("the client was closed while it built")
        failure = caches.failure or targets.failure or next(iter(self._failures), None)
        if failure is not None:
            failure.effect = "no tag was changed, and nothing was deleted"
            raise failure
        if is_lost and error.code == Code.UNAVAILABLE:
            raise self._lost(error)
        if self._session_failure:
            problem = f"{error.message}; the session with the daemon ended: {self._session_failure}"
            error = RpcError(error.code, problem, error.details)
        raise build_failed(
            error,
            self._steps,
            hide=self._mask.text,
            ref=self._ref,
            warnings=tuple(self._warnings),
            notices=tuple(self._notices),
            hosts=self._logins.asked,
        )

    def _lost(self, error: RpcError) -> KitcacheError:
        lost = NoDaemon(
            self._connection.address.url,
            f"the daemon was lost while it built: {self._mask.text(error.message)}",
            kind="lost",
            hints=("look at the daemon's log, then build again",),
        )
        lost.effect = _UNTOUCHED
        return lost


@contextmanager
def _checking_utf8() -> Iterator[None]:
    try:
        yield
    except UnicodeEncodeError as error:
        text = printable(error.object)
        raise UsageError(f"{text} is not UTF-8, which BuildKit requires") from None


def _cancelled(problem: str) -> Cancelled:
    return Cancelled("", problem=problem, effect=_UNTOUCHED)


def _check_tags(layout: LayoutTarget | None, caches: Caches) -> None:
    """Raise UsageError if an image and a cache would get the same tag in one directory."""
    if layout is None:
        return
    both = layout.tags & caches.tags_in(layout.cache)
    if both:
        raise UsageError(
            f"the image and the cache would both be '{min(both)}' there",
            path=layout.cache.store.path,
            hints=(
                "give the cache a tag of its own",
                "export them to two directories",
            ),
        )


def _check_contexts(sources: SessionSources, caches: Caches) -> None:
    """Raise UsageError if a context is a cache of this build.

    The Dockerfile may be in a cache directory: no other file of that directory is sent.
    """
    cache_directories = caches.left_out
    for name, path in sources.directories.items():
        if name != "dockerfile" and identity(os.stat(path)) in cache_directories:
            raise UsageError(
                "the build context is the directory of the cache: each build would change it",
                path=path,
                hints=("give the cache a directory of its own",),
            )


def _entries(entries: Sequence[CacheEntry]) -> list[control_pb2.CacheEntry]:
    return [control_pb2.CacheEntry(type=kind, attrs=dict(attrs)) for kind, attrs in entries]
