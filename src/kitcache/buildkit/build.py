"""One build, from the request to what it came to: everything that a session has, in order.

Locks and checks first, then the session, the Solve, and only after its success the tags and resets.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import chain

from kitcache.buildkit.abilities import Abilities
from kitcache.buildkit.arguments import check_options
from kitcache.buildkit.buildoptions import BuildOptions
from kitcache.buildkit.caches import Caches, SolveEntry, open_caches
from kitcache.buildkit.daemon.connect import DaemonConnection
from kitcache.buildkit.exporters import Exporter
from kitcache.buildkit.history import read_provenance
from kitcache.buildkit.limit import Limit
from kitcache.buildkit.log import log_calls, log_solve
from kitcache.buildkit.logins import Logins
from kitcache.buildkit.masks import Mask, make_mask
from kitcache.buildkit.proto import control_pb2
from kitcache.buildkit.publish import CacheResult
from kitcache.buildkit.request import LOCAL_DELETE, CheckedRequest, frontend_attrs
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
from kitcache.upkeep.jobcaches import LockedCaches, LockOptions

_FRONTEND = "dockerfile.v0"
_REF_LENGTH = 25
# For outputs to remove what is not whole; a write that waits for its reader ends later.
_CLEAN_UP_S = 2.0
_IMPORTING = "importing cache manifest from "
_UNTOUCHED = "no tag was changed; caches are as they were, but for blobs that came"


def run_build(
    connection: DaemonConnection, request: CheckedRequest, options: BuildOptions
) -> BuildResult:
    """Build on the daemon. Guarantees and errors are those of Client.build."""
    check_options(options)
    return _Build(connection, request, options).run()


class _Build:
    def __init__(
        self, connection: DaemonConnection, checked: CheckedRequest, wishes: BuildOptions
    ) -> None:
        self._cancel = Limit(wishes.cancel, wishes.timeout_s)
        bound_s = wishes.timeout_s
        # At least so long that a daemon that does answer can be asked to cancel.
        self._connection = connection if bound_s is None else connection.within(max(bound_s, 0.1))
        self._checked = checked
        self._request = checked.request
        self._wishes = wishes
        self._steps = StepTracker()
        self._mask = Mask()
        self._warnings: list[BuildWarning] = []
        self._notices: list[str] = []
        self._failures: list[KitcacheError] = []
        self._session_failure: str | None = None
        self._ref = os.urandom(_REF_LENGTH).hex()[:_REF_LENGTH]
        self._logins = Logins(wishes.credentials, self._notice, self._ref)

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

    def _notice_oddities(self) -> None:
        """Say what seems wrong in the request itself."""
        given = [export.warnings for export in self._request.cache_to]
        given += [output.warnings for output in self._request.outputs]
        given += [self._request.warnings]
        given += [entry.warnings for entry in self._request.cache_from]
        for sentence in chain.from_iterable(given):
            self._notice(sentence)
        kinds = {export.kind for export in self._request.cache_to}
        if self._wishes.prune_policy is not None and "local" not in kinds:
            self._notice("the policy applies to no cache: there is no --cache-to type=local")

    def _run(self) -> BuildResult:
        self._notice_oddities()
        with ExitStack() as stack:
            offer = open_sources(self._request, self._wishes.stdin, stack, self._wait_for)
            exporters = self._checked.exporters(is_engine=self._connection.is_engine)
            if not exporters and not self._request.outputs:
                self._notice(
                    "no output was asked for, so the result stays in the daemon's build cache:"
                    " --load, --push or --output brings it elsewhere"
                )
            abilities = Abilities(self._connection)
            abilities.check(self._checked, exporters)
            has_containerd_images = abilities.has_containerd_images(exporters)
            options = self._lock_options()
            locked = LockedCaches(options, stack, "nothing was built")
            targets = open_targets(
                exporters,
                self._wishes.stdout,
                locked,
                stack,
                may_delete_anywhere=LOCAL_DELETE in self._request.allow,
            )
            caches = stack.enter_context(
                open_caches(
                    self._request.cache_to,
                    self._request.cache_from,
                    options,
                    self._wishes.prune_policy,
                    locked,
                )
            )
            _expect_own_tags(targets.layout, caches)
            _expect_own_directory(offer, caches)
            expect_kept(targets, locked)
            with _expecting_utf8():
                message = self._message(offer, exporters, caches, abilities)
            self._mask = make_mask(message)
            solved = self._solve(offer, targets, caches, message)
            try:
                response = self._expect_success(solved, targets, caches)
            except KitcacheError as error:
                raise error from (error.__cause__ or self._logins.failure)
            self._notice_lost_imports()
            targets.publish(response, options)
            results = caches.publish(response)
            is_in_containerd = has_containerd_images or targets.is_loaded_into_containerd
        return self._result(response, results, is_in_containerd=is_in_containerd)

    def _result(
        self,
        response: Mapping[str, str],
        results: tuple[CacheResult, ...],
        *,
        is_in_containerd: bool,
    ) -> BuildResult:
        return BuildResult(
            ref=self._ref,
            digest=known_digest(response.get("containerimage.digest")),
            image_id=find_image_id(response, is_in_containerd=is_in_containerd),
            metadata=self._mask.value(decode_response(response)),
            caches=results,
            warnings=tuple(self._warnings),
            notices=tuple(self._notices),
            logins=tuple(sorted(self._logins.sent)),
            provenance=self._provenance(),
        )

    def _wait_for(self, pipe: str) -> None:
        self._notice(f"waiting for the pipe {pipe}")
        if self._cancel.is_set():
            raise Cancelled("", effect="nothing was built")

    def _lock_options(self) -> LockOptions:
        wishes = self._wishes
        return LockOptions(wishes.lock_timeout_s, wishes.on_progress, self._notice, self._cancel)

    def _notice(self, sentence: str) -> None:
        sentence = self._mask.text(sentence)
        if sentence not in self._notices:
            self._notices.append(sentence)
            self._wishes.on_notice(sentence)

    def _notice_lost_imports(self) -> None:
        for step in self._steps.steps:
            if step.state == "error" and step.name.startswith(_IMPORTING):
                steps = login_hints(step.error, self._logins.asked)
                advice = "".join(f"; {words}" for words in steps)
                problem = f"{step.name} failed, so that nothing of it was used: {step.error}"
                self._notice(problem + advice)

    def _update(self, update: BuildUpdate) -> None:
        self._masked_update(self._mask.update(update))

    def _masked_update(self, update: BuildUpdate) -> None:
        self._steps.apply(update)
        self._warnings += update.warnings
        self._wishes.on_update(update)

    def _message(
        self,
        offer: SessionSources,
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
                offer.inputs,
                is_engine=self._connection.is_engine,
                cache_imports=caches.import_entries,
                host_gateway=abilities.host_gateway(self._checked),
                proxies=self._wishes.proxy_args,
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
        if exporters:  # what a daemon before BuildKit 0.13 reads
            message.exporter_deprecated = exporters[0].kind
            message.exporter_attrs_deprecated.update(dict(exporters[0].attrs))
        return message

    def _solve(
        self,
        offer: SessionSources,
        targets: Targets,
        caches: Caches,
        message: control_pb2.SolveRequest,
    ) -> Solved:
        handlers = make_handlers(
            sources=offer.sources,
            left_out=caches.left_out,
            uploads=offer.uploads,
            files=targets.files,
            stores={**caches.stores, **targets.stores, **offer.stores},
            secrets=offer.secrets,
            credentials=self._logins.find,
            on_notice=self._notice,
            on_failure=self._failures.append,
        )
        key = make_shared_key(offer.directories)
        metadata = make_metadata(message.session, key, handlers)
        log_solve(message, self._connection.address.url, offer.sources, self._request.secrets)
        server = self._connection.open_session(metadata, log_calls(handlers, self._ref))
        try:
            solved = solve(self._connection.channel, message, self._update, self._cancel)
            if (rest := self._mask.rest()).logs:
                self._masked_update(rest)
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
        error = solved.error or RpcError(Code.INTERNAL, "the daemon ended the build without a word")
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
            why = f"{error.message}; the session with the daemon ended: {self._session_failure}"
            error = RpcError(error.code, why, error.details)
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

    def _provenance(self) -> Mapping[str, object]:
        if not any(kind == "provenance" for kind, _ in self._request.attests):
            return {}
        return dict(self._mask.value(read_provenance(self._connection.channel, self._ref)))


@contextmanager
def _expecting_utf8() -> Iterator[None]:
    try:
        yield
    except UnicodeEncodeError as error:
        text = printable(error.object)
        raise UsageError(f"{text} is no UTF-8, as all that BuildKit is told must be") from None


def _cancelled(problem: str) -> Cancelled:
    return Cancelled("", problem=problem, effect=_UNTOUCHED)


def _expect_own_tags(layout: LayoutTarget | None, caches: Caches) -> None:
    """Raises UsageError where an image and a cache are to be one tag of one directory."""
    if layout is None:
        return
    both = layout.tags & caches.tags_in(layout.cache)
    if both:
        raise UsageError(
            f"the image and the cache would both be '{min(both)}' there",
            path=layout.cache.layout.path,
            hints=(
                "give the cache a tag of its own: --cache-to type=local,dest=DIR,tag=cache",
                "export them to two directories",
            ),
        )


def _expect_own_directory(offer: SessionSources, caches: Caches) -> None:
    """Raises UsageError where a context is itself a cache of this build.

    Its Dockerfile may lie there: of that directory no more is sent.
    """
    caches_here = caches.left_out
    for name, path in offer.directories.items():
        if name != "dockerfile" and identity(os.stat(path)) in caches_here:
            raise UsageError(
                "the build context is the directory of the cache: each build would change it",
                path=path,
                hints=("give the cache a directory of its own",),
            )


def _entries(entries: Sequence[SolveEntry]) -> list[control_pb2.CacheEntry]:
    return [control_pb2.CacheEntry(type=kind, attrs=dict(attrs)) for kind, attrs in entries]
