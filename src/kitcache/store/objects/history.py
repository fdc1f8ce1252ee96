"""The recorded runs of a cache in an object store: reads and writes the state object."""

from collections.abc import Callable, Collection
from typing import NamedTuple

from kitcache.errors import Damaged, KitcacheError, NotConfirmed, Unsafe
from kitcache.oci.digest import Digest
from kitcache.options.objectcaches import ObjectCache
from kitcache.options.units import format_age
from kitcache.store.objects.checks import check_renewal
from kitcache.store.objects.client import Condition, ObjectClient
from kitcache.store.objects.live import (
    LiveState,
    StateError,
    add_run,
    decode_state,
    encode_state,
    recall_all_names,
    recall_names,
)
from kitcache.store.values import Remembered

_LIMIT_BYTES = 1 << 30
_TEST_NS = 30 * 24 * 3600 * 10**9
_ATTEMPTS = 4
_MAX_SKEW_NS = 15 * 60 * 10**9
"""S3 itself refuses requests whose time differs by more than this."""


class _Loaded(NamedTuple):
    """The state object. etag: "" if it does not exist."""

    state: LiveState
    etag: str


class RunHistory:
    """The state object of one cache, read once.

    Attributes:
        warnings: Sentences for the result of the run.
    """

    def __init__(self, client: ObjectClient, cache: ObjectCache) -> None:
        self._client = client
        self._key = f"{cache.state_key}live"
        self._cache = cache
        self._grace_ns = 0
        self._loaded: _Loaded | None = None
        self._recorded: frozenset[str] | None = None
        self._had_runs: bool | None = None
        self._is_confirmed = True
        self.warnings: list[str] = []

    @property
    def _keeps_all_unknown(self) -> bool:
        """True if the date of a blob does not show that an export uses it."""
        return not self._client.abilities().renews

    def _load(self) -> _Loaded:
        if self._loaded is None:
            answer = self._client.read(self._key, _LIMIT_BYTES)
            if answer is None:
                self._loaded = _Loaded(LiveState(), "")
            else:
                self._loaded = _Loaded(self._decode(answer[0]), answer[1].etag)
        return self._loaded

    def _decode(self, data: bytes) -> LiveState:
        try:
            return decode_state(data)
        except StateError as error:
            problem = f"the object {self._key} {error.problem}: it records which blobs were live"
            if error.is_newer:
                hints = ("use the version of kitcache that wrote it, or a newer one",)
                raise Unsafe(self._client.address, problem, hints=hints) from None
            raise Damaged(
                self._client.address,
                problem,
                kind="malformed",
                hints=(f"delete the object {self._key}: then the next run is a first run",),
            ) from None

    def recall(self, grace_ns: int) -> Remembered:
        """Return the blobs that recent runs protect. Raises Damaged, Unsafe."""
        self._grace_ns = grace_ns
        state, now_ns = self._load().state, self._client.now_ns()
        if not self._keeps_all_unknown:
            build_ns = grace_ns - max(self._cache.touch_refresh_ns, 1)
            return Remembered({"sha256": recall_names(state, now_ns, grace_ns, build_ns)})
        names = recall_all_names(state, now_ns, grace_ns)
        return Remembered({"sha256": names or set()}, keeps_all=names is None)

    def check_confirmed(self, live_count: int, root_count: int, *, confirmed: bool) -> None:
        """Raise NotConfirmed for a first run, or if far fewer blobs are live.

        Also warn if there are fewer roots than in the last run.
        """
        state = self._load().state
        runs = state.runs
        if runs and root_count < runs[-1].root_count:
            self._warn(
                f"fewer roots than in the last run: {root_count:,} of {runs[-1].root_count:,}"
            )
        if self._had_runs is None:  # A run that is not confirmed records itself.
            self._had_runs = bool(runs)
        doubt = ""
        if not self._had_runs:
            doubt = "this is the first run of kitcache on this cache"
        elif not state.is_confirmed:
            doubt = "no run of kitcache on this cache was confirmed yet"
        elif live_count * 2 < runs[-1].live_count:
            doubt = (
                f"far fewer blobs are live than in the last run: {live_count:,} of"
                f" {runs[-1].live_count:,}"
            )
        self._is_confirmed = confirmed or not doubt
        if not self._is_confirmed:
            raise NotConfirmed(self._client.address, doubt)

    def check_store(self, check: Callable[[], None]) -> None:
        """Test the store if that is due. Raises Unsafe if it cannot protect exports."""
        state = self._load().state
        now_ns = self._client.now_ns()
        if self._client.abilities().renews and not 0 <= now_ns - state.tested_ns < _TEST_NS:
            check_renewal(self._client, self._cache, check)
            state = state._replace(tested_ns=now_ns)
            self._loaded = self._load()._replace(state=state)

    def record(self, live: Collection[Digest], root_count: int) -> None:
        """Record the blobs that are live now.

        Raises:
            Unsafe: They cannot be recorded, and nothing else protects exports; or the store has
                two clocks.
        """
        names = frozenset(digest.hex for digest in live)
        # If far fewer blobs are live, the next run must be compared with the last one too.
        has_too_few = not self._is_confirmed and self._load().state.is_confirmed
        if names == self._recorded or has_too_few:
            return
        try:
            self._record(names, root_count)
        except KitcacheError as error:
            if self._keeps_all_unknown:
                raise Unsafe(
                    error.path,
                    f"the live blobs cannot be recorded: {error.problem}",
                    hints=error.hints,
                ) from None
            self._warn(f"the live blobs cannot be recorded for the next run: {error.problem}")
        else:
            self._check_clock()
        self._recorded = names

    def _check_clock(self) -> None:
        """Refuse a store that dates its answers and its objects by different clocks."""
        info, now_ns = self._client.stat(self._key), self._client.now_ns()
        skew_ns = 0 if info is None else now_ns - info.modified_ns
        if abs(skew_ns) > _MAX_SKEW_NS:
            later = "later" if skew_ns > 0 else "earlier"
            raise Unsafe(
                self._client.address,
                f"the store's answers are dated {format_age(abs(skew_ns))} {later} than an object"
                " that was written just now: kitcache cannot tell how old a blob is",
                hints=("check the clocks of the store, and of a proxy in front of it",),
            )

    def _record(self, names: frozenset[str], root_count: int) -> None:
        for _ in range(_ATTEMPTS):
            loaded = self._load()
            now_ns = self._client.now_ns()
            state = add_run(loaded.state, names, root_count, now_ns, self._grace_ns)
            state = state._replace(is_confirmed=state.is_confirmed or self._is_confirmed)
            data = encode_state(state)
            info = self._client.write(self._key, data, Condition(loaded.etag))
            if info is not None:
                self._loaded = _Loaded(state, info.etag)
                return
            # Another run has written it: its blobs count too.
            tested_ns, self._loaded = loaded.state.tested_ns, None
            again = self._load()
            self._loaded = again._replace(
                state=again.state._replace(tested_ns=max(again.state.tested_ns, tested_ns))
            )
        raise KitcacheError(self._client.address, f"the object {self._key} kept changing")

    def _warn(self, sentence: str) -> None:
        if sentence not in self.warnings:
            self.warnings.append(sentence)
