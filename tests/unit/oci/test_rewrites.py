"""What a rewrite does not know it keeps, also the fields that unknown objects give twice."""

from collections.abc import Callable

import pytest

from kitcache.oci.cacheconfig import trim_cacheconfig
from kitcache.oci.cachemanifest import trim_manifest
from kitcache.oci.descriptor import REF_NAME
from kitcache.oci.digest import Digest
from kitcache.oci.index import (
    IMAGE_NAME,
    CopiedEntry,
    NewEntry,
    add_entries,
    copy_entries,
    edit_entries,
    read_entries,
    remove_entries,
)
from kitcache.upkeep.health.indexrecovery import glean_entries, make_index

TWICE = '"x-new":{"a":1,"b":[{"c":1,"c":2}],"a":3}'
DIGESTS = [f"sha256:{n * 64}" for n in "123456"]


def entry(number: int, name: str, more: str = TWICE) -> str:
    return (
        f'{{"mediaType":"a/b","digest":"{DIGESTS[number]}","size":3,'
        f'"annotations":{{"{REF_NAME}":"{name}","k":"1","k":"2"}},{more}}}'
    )


INDEX = f'{{{TWICE},"manifests":[{entry(0, "a")},{entry(1, "b")}],"y":0,"y":1}}'.encode()
KEPT = entry(1, "b").encode()
MOVED = Digest("sha256", "7" * 64)

EDITS: dict[str, Callable[[], bytes]] = {
    "drop": lambda: remove_entries(INDEX, ("a",))[0],
    "put": lambda: add_entries(INDEX, (NewEntry("a/b", DIGESTS[2], 3, "a"),)),
    "edit": lambda: edit_entries(INDEX, remove=(0,)),
    "move": lambda: edit_entries(INDEX, move={0: (MOVED, 9)}),
    "copy": lambda: copy_entries(INDEX, (INDEX,), (CopiedEntry(0, 0, "c"),)),
}


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_of_the_index_keeps_what_is_given_twice(name: str) -> None:
    after = EDITS[name]()
    assert after.startswith(f"{{{TWICE},".encode())
    assert after.endswith(b',"y":0,"y":1}')
    assert KEPT in after


def test_what_moves_and_what_is_copied_keeps_it_too() -> None:
    assert f'"k":"1","k":"2"}},{TWICE}}}'.encode() in EDITS["move"]().split(KEPT)[0]
    assert EDITS["copy"]().count(TWICE.encode()) == 4


def test_an_entry_that_moves_loses_all_data_of_the_old_blob() -> None:
    data = f'{{"manifests":[{entry(0, "a", chr(34) + "data" + chr(34) + ":0,")}]}}'
    data = data.replace('"data":0,}', '"data":"YQ==","Data":"YQ==","data":"Yg=="}')
    assert b"ata" not in edit_entries(data.encode(), move={0: (MOVED, 9)})


def test_an_entry_under_a_new_name_has_no_image_name_left() -> None:
    names = f'"annotations":{{"{IMAGE_NAME}":"one","{IMAGE_NAME}":"two"}}'
    data = f'{{"manifests":[{{"digest":"{DIGESTS[0]}","size":3,{names}}}]}}'.encode()
    (_, copied) = read_entries(copy_entries(data, (data,), (CopiedEntry(0, 0, "c"),)))
    assert (copied.ref_name, copied.image_name) == ("c", None)


def test_a_smaller_root_keeps_it() -> None:
    layers = ",".join(
        f'{{"mediaType":"l","digest":"{digest}","size":1,{TWICE}}}' for digest in DIGESTS[:2]
    )
    config = f'{{"mediaType":"application/vnd.buildkit.cacheconfig.v0","digest":"{DIGESTS[3]}"'
    manifest = f'{{{TWICE},"config":{config},"size":2,{TWICE}}},"layers":[{layers}]}}'.encode()
    cut = trim_manifest(manifest, [Digest("sha256", "1" * 64)], MOVED, 9)
    assert cut.count(TWICE.encode()) == 3


def test_a_smaller_cacheconfig_keeps_it() -> None:
    records = ",".join(
        f'{{"digest":"{DIGESTS[n]}","layers":[{{"layer":{n},{TWICE}}}],{TWICE}}}' for n in (0, 1)
    )
    layers = ",".join(f'{{"blob":"{digest}","parent":-1,{TWICE}}}' for digest in DIGESTS[:2])
    config = f'{{"layers":[{layers}],"records":[{records}],{TWICE}}}'.encode()
    cut = trim_cacheconfig(config, [(0, 0)])
    assert (len(cut.layers), cut.data.count(TWICE.encode())) == (1, 4)


def test_what_is_found_in_a_torn_index_keeps_it() -> None:
    found = list(glean_entries(INDEX[:-12]))
    assert [one.names[0] for one in found] == ["a", "b"]
    assert make_index(found).count(TWICE.encode()) == 2
