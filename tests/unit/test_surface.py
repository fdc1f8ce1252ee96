"""The public surface of kitcache, pinned: what is here is a promise, and changes in the open."""

import inspect
from importlib.metadata import version
from typing import Any

import pytest

import kitcache

FUNCTIONS = {
    "copy": (
        "(sources, target, *, tags=(), rename=(), replace=False, trim=False, dry_run=False,"
        " lock_timeout_s=30.0, on_progress=None, cancel=None)"
    ),
    "du": (
        "(path, *, options=SweepOptions(min_age_ns=0, ingest_age_ns=3600000000000,"
        " export_time_ns=86400000000000, confirmed=False, settles=False), on_progress=None,"
        " cancel=None)"
    ),
    "find_daemon": "(environ, *, addr=None, builder=None, tls=None)",
    "ls": "(path, *, cancel=None)",
    "ls_tag": "(path, tag, *, cancel=None)",
    "merge": (
        "(sources, target, *, rename=(), replace=False, dry_run=False, lock_timeout_s=30.0,"
        " on_progress=None, cancel=None)"
    ),
    "prune": (
        "(path, policy, *, options=SweepOptions(min_age_ns=0, ingest_age_ns=3600000000000,"
        " export_time_ns=86400000000000, confirmed=False, settles=False),"
        " dry_run=False, lock_timeout_s=30.0, on_progress=None, cancel=None)"
    ),
    "read_policy": "(text, name)",
    "repair": (
        "(path, *, sources=(), read=False, dry_run=False, lock_timeout_s=30.0, on_progress=None,"
        " cancel=None)"
    ),
    "reset": (
        "(path, *, options=SweepOptions(min_age_ns=0, ingest_age_ns=3600000000000,"
        " export_time_ns=86400000000000, confirmed=False, settles=False),"
        " dry_run=False, lock_timeout_s=30.0, on_progress=None, cancel=None)"
    ),
    "tag": (
        "(path, source, target, *, dry_run=False, lock_timeout_s=30.0, on_progress=None,"
        " cancel=None)"
    ),
    "trim": (
        "(path, tag, max_used_bytes, *, options=SweepOptions(min_age_ns=0,"
        " ingest_age_ns=3600000000000, export_time_ns=86400000000000, confirmed=False,"
        " settles=False),"
        " dry_run=False, lock_timeout_s=30.0, on_progress=None, cancel=None)"
    ),
    "untag": "(path, names, *, dry_run=False, lock_timeout_s=30.0, on_progress=None, cancel=None)",
    "verify": "(path, *, read=False, lock_timeout_s=30.0, on_progress=None, cancel=None)",
    "why": "(path, blob, *, on_progress=None, cancel=None)",
}


# Classes that are no values: how one is made, then its methods and properties.
CLASSES = {
    "RunningBuild": (
        "(client, request, options)",
        {
            "cancel": "()",
            "done": "()",
            "is_over": "",
            "next_update": "(timeout_s=None)",
            "result": "(timeout_s=None)",
        },
    ),
    "Client": (
        "(address, *, timeout_s=10.0)",
        {
            "address": "",
            "build": "(context='.', *, dockerfile=None, target='', build_args=None, labels=None,"
            " platforms=(), no_cache=False, pull=False, build_contexts=None, network='default',"
            " secrets=(), tags=(), outputs=(), cache_to=(), cache_from=(), attests=None,"
            " on_update=None, on_notice=None, cancel=None, credentials=None, stdin=None,"
            " prune_policy=None, timeout_s=None, environ=None, allow=())",
            "close": "()",
            "from_env": "(environ, *, addr=None, builder=None, tls=None, timeout_s=10.0)",
            "info": "()",
            "is_engine": "",
            "run": "(request, options)",
            "start": "(request, options)",
            "workers": "()",
        },
    ),
    "Credentials": ("(username, secret)", {"secret": "", "username": ""}),
    "DockerConfig": (
        "(directory, warn, *, helper_timeout_s=30.0, cancel=None)",
        {"credentials": "(host)"},
    ),
    "Secret": ("(id, path=None, data=None)", {"data": "", "id": "", "path": ""}),
    "StepTracker": (
        "()",
        {
            "apply": "(update)",
            "break_line": "(key)",
            "find": "(vertex)",
            "get": "(key)",
            "started_ns": "",
            "steps": "",
            "warnings": "",
        },
    ),
}


# Fields of a value in order, then what follows from them.
VALUES = {
    "Address": ("url origin tls=None is_engine=None command=() is_builder=False", ""),
    "BadBlob": ("digest problem size", ""),
    "BlobReferences": ("path digest size written_ns paths has_more_paths damage", "is_unreachable"),
    "BuildOptions": (
        "on_update=_ignore on_notice=_ignore on_progress=None cancel=None"
        " credentials=_no_login stdin=None stdout=None proxy_args=() lock_timeout_s=30.0"
        " prune_policy=None timeout_s=None",
        "",
    ),
    "BuildRequest": (
        "context='.' dockerfile=None target='' build_args=() labels=() platforms=()"
        " no_cache=False no_cache_filter=() pull=False build_contexts=() add_hosts=()"
        " network='default' secrets=() tags=() outputs=() cache_to=() cache_from=()"
        " attests=() allow=() shm_size=0 ulimits=() warnings=()",
        "",
    ),
    "BuildResult": (
        "ref digest metadata caches=() warnings=() notices=() logins=() provenance={}"
        " image_id=None",
        "exit_code",
    ),
    "BuildUpdate": ("vertexes=() transfers=() logs=() warnings=()", ""),
    "BuildWarning": ("vertex level short detail=() url='' source=None ranges=()", ""),
    "CacheExport": (
        "kind attrs=() dest='' tag='latest' reset=False warnings=()",
        "directory ignore_error is_active names",
    ),
    "CacheImport": (
        "kind attrs=() src='' tag='latest' digest=None warnings=()",
        "directory is_active",
    ),
    "CacheResult": (
        "path tag outcome digest written reused reset problem='' failure_code=0 prune=None",
        "exit_code",
    ),
    "CachedStep": ("cache_key created_ns last_read_ns bytes unique_bytes", ""),
    "DaemonInfo": ("version='' revision='' package='' dockerfile_version=''", ""),
    "DamagedPath": ("root chain kind problem", ""),
    "Descriptor": ("media_type digest size ref_name=None platform=None elsewhere=False", ""),
    "Digest": ("algorithm hex", "is_known matches short"),
    "DiskSpace": ("bytes=None percentage=None", "of"),
    "DiskUsage": (
        "path live reclaimable ingest foreign tags missing_blobs damage skipped_sweeps=0"
        " quarantine=Tally(blobs=0, bytes=0) requests=None warnings=()"
        " too_young=Tally(blobs=0, bytes=0)",
        "exit_code",
    ),
    "HeldBlob": ("digest bytes unique_bytes role media_type platform created_by step", ""),
    "Link": ("descriptor role", ""),
    "LockHolder": ("pid command", ""),
    "CopyResult": (
        "path outcome sources tags trimmed=() skipped=() linked=Tally(blobs=0, bytes=0)"
        " copied=Tally(blobs=0, bytes=0) reused=Tally(blobs=0, bytes=0) warnings=() seconds=0.0",
        "",
    ),
    "SkippedTag": ("source ref_name digest reason", ""),
    "TrimmedTag": ("source ref_name steps removed_steps", ""),
    "MergeResult": ("path outcome sources tags linked copied reused warnings seconds", ""),
    "MergedTag": ("source source_name target_name digests state previous_digests=()", ""),
    "MissingBlob": ("digest ref_name problem='is missing'", ""),
    "Output": ("kind dest=None attrs=() warnings=()", "is_directory is_mirror is_pushed"),
    "Progress": ("phase blobs bytes total_bytes=0 seconds=0.0", ""),
    "PrunePolicy": (
        "keep_tags=() rules=() max_used=None min_free=None allow_empty=False trim=False"
        " source='' drop_tags=() key_prefix=''",
        "has_age has_limit is_empty spell",
    ),
    "PruneResult": (
        "path outcome tags trimmed reset limit_bytes needed_bytes reason=''",
        "exit_code",
    ),
    "PruneRule": (
        "name='' tags=('*',) keep=False keep_last=None keep_within_ns=None unused_for_ns=None",
        "fields is_common label matches",
    ),
    "ReferencePath": ("root links", ""),
    "RepairAction": ("kind tag digest description", ""),
    "RepairResult": ("path outcome actions verification", "exit_code"),
    "ResetResult": (
        "path outcome entry_count kept too_young deleted ingests_deleted ingests_kept"
        " not_deleted not_deleted_count foreign foreign_count missing_blobs seconds"
        " reason='' requests=None warnings=() freed=None",
        "exit_code export_code needs_confirmation unreachable_before",
    ),
    "RequestCounts": ("list=0 get=0 head=0 put=0 copy=0 delete=0", ""),
    "Root": ("position ref_name descriptor roots_name='index.json'", "label"),
    "SourceLocation": ("filename first_line last_line text", ""),
    "Step": ("key name state intervals error transfers warnings log unfinished", "seconds"),
    "SweepOptions": (
        "min_age_ns=0 ingest_age_ns=3600000000000 export_time_ns=86400000000000 confirmed=False"
        " settles=False",
        "",
    ),
    "TagContents": ("path ref_name digests kind size unique blobs damage", "exit_code"),
    "TagDecision": (
        "ref_name digest positions keep reason last_used_ns last_used_from size unique",
        "",
    ),
    "TagInfo": (
        "ref_name digest kind created_ns created_from size layers platforms missing problem"
        " last_used_ns=None last_used_from='unknown'",
        "",
    ),
    "TagList": ("path tags damage", "exit_code"),
    "TagResult": ("path outcome source target digest previous_digests", ""),
    "TagStatus": (
        "position ref_name digest kind importable reason='' steps=0 unusable_steps=()",
        "",
    ),
    "TagUsage": ("ref_name digest unique shared", ""),
    "Tally": ("blobs=0 bytes=0", "plus"),
    "TlsConfig": ("ca=None cert=None key=None server_name=None verify=True", ""),
    "Transfer": (
        "id vertex name='' current=0 total=0 timestamp_ns=None started_ns=None completed_ns=None",
        "",
    ),
    "TrimResult": (
        "path outcome ref_name limit_bytes before before_size after after_size kept_steps"
        " removed_steps reset=None",
        "exit_code",
    ),
    "UntagResult": ("path outcome entries", ""),
    "UnusableStep": ("key cache_key created_ns layers reason", ""),
    "VerifyResult": (
        "path blobs bad_blobs index_problem tags damage warnings seconds reason='' hashed=True",
        "exit_code",
    ),
    "Vertex": (
        "digest inputs=() name='' cached=False started_ns=None completed_ns=None error=''"
        " group=None",
        "",
    ),
    "VertexLog": ("vertex stream data timestamp_ns=None", ""),
    "Waiting": ("path waiting_for holder seconds", ""),
    "Worker": ("id labels platforms", "exports_local_caches"),
}


# Exit code, parent, the constructor, and the properties beyond those of every error.
_EVERY = "details=(), effect='nothing was deleted', hints=()"
_EACH = "details=(), effect='nothing was changed', hints=()"
ERRORS: dict[str, tuple[int, str, str, str]] = {
    "BuildFailed": (
        21,
        "KitcacheError",
        "(problem, *, details=(), hints=(), step='', log=(), locations=(), step_exit_code=None,"
        " ref='', warnings=(), notices=())",
        "facts",
    ),
    "Busy": (
        11,
        "KitcacheError",
        f"(path, problem, *, {_EVERY}, holder_pid=None, holder_command=None, retry_after_s=None)",
        "",
    ),
    "Cancelled": (
        130,
        "KitcacheError",
        "(path, *, problem='stopped on request', effect='nothing was deleted', deleted_blobs=0,"
        " deleted_bytes=0, timeout_s=None)",
        "",
    ),
    "Damaged": (
        12,
        "KitcacheError",
        f"(path, problem, *, {_EVERY}, tag=None, chain=(), kind)",
        "",
    ),
    "Incomplete": (
        3,
        "KitcacheError",
        "(path, not_deleted, *, not_deleted_count, deleted_count=0)",
        "",
    ),
    "KitcacheError": (1, "Exception", f"(path, problem, *, {_EVERY})", "facts headline"),
    "LimitNotReached": (
        14,
        "KitcacheError",
        f"(path, problem, *, {_EACH}, limit_bytes, needed_bytes)",
        "",
    ),
    "NoDaemon": (
        20,
        "KitcacheError",
        "(path, problem, *, details=(), hints=(), kind='unreachable')",
        "",
    ),
    "NotACache": (10, "KitcacheError", "(path, reason)", ""),
    "NotConfirmed": (
        15,
        "KitcacheError",
        "(path, problem, *, hints=('confirm one run of reset on this cache',))",
        "",
    ),
    "NotFound": (1, "KitcacheError", f"(path, problem, *, {_EVERY})", ""),
    "NotExecutable": (126, "KitcacheError", "(program, reason, *, details=())", ""),
    "NotInstalled": (127, "KitcacheError", "(program, *, details=())", ""),
    "Unreadable": (
        1,
        "KitcacheError",
        f"(path, file, reason, *, {_EACH}, tag=None, chain=())",
        "clause",
    ),
    "Unsafe": (13, "KitcacheError", f"(path, problem, *, {_EVERY}, tag=None, chain=())", ""),
    "UsageError": (2, "KitcacheError", "(problem, *, path='', details=(), hints=())", ""),
}


def plain_signature(function: Any, *, is_bound: bool = False) -> str:
    """The signature without its types: those are mypy's to check. is_bound: and without self."""
    function = function.__func__ if isinstance(function, classmethod) else function
    signature = inspect.signature(function)
    parameters = [p.replace(annotation=p.empty) for p in signature.parameters.values()]
    parameters = parameters[1:] if is_bound else parameters
    return str(signature.replace(parameters=parameters, return_annotation=signature.empty))


def fields_of(cls: Any) -> str:
    defaults = cls._field_defaults
    shown = {f: getattr(d, "__name__", repr(d)) for f, d in defaults.items()}
    return " ".join(f"{f}={shown[f]}" if f in shown else f for f in cls._fields)


def extras_of(cls: Any) -> str:
    public = {name for name in vars(cls) if not name.startswith("_")}
    return " ".join(sorted(public - set(cls._fields)))


def test_all_names_are_listed_here() -> None:
    names = {"__version__", *FUNCTIONS, *CLASSES, *VALUES, *ERRORS}
    assert set(kitcache.__all__) == names
    assert len(kitcache.__all__) == len(names)
    assert dir(kitcache) == sorted(kitcache.__all__)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_verbs_signature(name: str) -> None:
    assert plain_signature(getattr(kitcache, name)) == FUNCTIONS[name]


@pytest.mark.parametrize("name", CLASSES)
def test_a_class_is_made_and_used_so(name: str) -> None:
    cls = getattr(kitcache, name)
    members = {
        member: "" if isinstance(value, property) else plain_signature(value, is_bound=True)
        for member, value in vars(cls).items()
        if not member.startswith("_")
    }
    assert (plain_signature(cls), members) == CLASSES[name]


@pytest.mark.parametrize("name", VALUES)
def test_a_values_fields(name: str) -> None:
    cls = getattr(kitcache, name)
    assert issubclass(cls, tuple)
    assert (fields_of(cls), extras_of(cls)) == VALUES[name]


@pytest.mark.parametrize("name", ERRORS)
def test_an_errors_code_and_constructor(name: str) -> None:
    cls = getattr(kitcache, name)
    code, parent, constructor, extras = ERRORS[name]
    public = next(c for c in cls.__mro__[1:] if not c.__name__.startswith("_"))
    assert (cls.exit_code, public.__name__) == (code, parent)
    assert plain_signature(cls) == constructor
    properties = [n for n, v in vars(cls).items() if isinstance(v, property)]
    assert " ".join(sorted(properties)) == extras


@pytest.mark.parametrize("name", ERRORS)
def test_an_errors_parameters_have_types(name: str) -> None:
    parameters = inspect.signature(getattr(kitcache, name)).parameters.values()
    assert [p.name for p in parameters if p.annotation is p.empty] == []


@pytest.mark.parametrize("name", sorted(kitcache.__all__))
def test_a_name_resolves_is_documented_and_lives_where_the_table_says(name: str) -> None:
    value = getattr(kitcache, name)
    if name == "__version__":
        return
    assert value.__name__ == name
    # Functions are pickled by the public name.
    home = "kitcache" if name in FUNCTIONS else kitcache._HOME_OF[name]
    assert value.__module__ == home
    assert (value.__doc__ or "").strip()
    # What NamedTuple writes where nobody else did.
    assert not (value.__doc__ or "").startswith(f"{name}(")


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'kitcache' has no attribute 'nothing'"):
        _ = kitcache.nothing  # type: ignore[attr-defined]


def test_a_star_import_gives_the_same_names() -> None:
    namespace: dict[str, Any] = {}
    exec("from kitcache import *", namespace)
    assert namespace.keys() - {"__builtins__"} == set(kitcache.__all__)


def test_the_version_is_that_of_the_installed_package() -> None:
    assert version("kitcache") == kitcache.__version__
