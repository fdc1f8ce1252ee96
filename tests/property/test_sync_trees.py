"""What the daemon has after a transfer is the tree; what comes back from it is the tree again."""

import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from kitcache.buildkit.proto import files_pb2
from kitcache.buildkit.session.outputs import DirectoryTarget, output_handler
from kitcache.buildkit.wire.grpc import RpcError
from kitcache.buildkit.wire.rpc import Stream
from tests.property.trees import File, Link, Tree, read_tree, trees, walk_tree, write_tree
from tests.unit.buildkit.session.daemon import ask_for, copy_of, order_key, start
from tests.unit.buildkit.session.streams import Call

Packet = files_pb2.Packet


@contextmanager
def on_disk(tree: Tree) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as box:
        root = Path(box) / "context"
        write_tree(root, tree)
        yield root


@given(trees)
def test_the_daemon_gets_the_tree(tree: Tree) -> None:
    with on_disk(tree) as root:
        found = copy_of(str(root))
    expected = sorted(walk_tree(tree), key=lambda item: order_key(item[0]))
    assert found.paths == [path for path, _ in expected]
    for stat, (path, node) in zip(found.stats, expected, strict=True):
        match node:
            case File():
                assert found.data[path] == node.data
                assert stat.size == len(node.data)
                assert stat.mode & 0o777 == node.mode & 0o777
            case Link():
                assert (stat.linkname, stat.mode >> 27) == (node.target, 1)
            case _:
                assert stat.mode >> 31 == 1


def relay(source: Stream, dest: Stream) -> None:
    """Pass on what one end says, until the call there is over."""
    try:
        for message in source:
            dest.send(message)
    except RpcError:
        pass


@given(trees, trees)
def test_what_is_sent_and_received_is_the_tree(tree: Tree, older: Tree) -> None:
    with on_disk(tree) as root:
        dest = root.parent / "dest"
        sending = start({"context": str(root)}, ask_for())
        receiving = Call(output_handler({0: DirectoryTarget(str(dest))}))
        back = threading.Thread(target=relay, args=(receiving.stream, sending.stream))
        back.start()
        relay(sending.stream, receiving.stream)
        back.join()
        receiving.wait()
        sending.wait()
        assert read_tree(dest) == tree


@given(trees, st.integers(0, 40), st.booleans())
def test_a_transfer_that_is_cut_anywhere_ends(tree: Tree, cut: int, is_rude: bool) -> None:
    with on_disk(tree) as root:
        call = start({"context": str(root)}, ask_for(), window=256)
        try:
            for number in range(cut):
                if call.stream.receive(timeout_s=0.05) is None:
                    break
                call.stream.send(Packet(type=Packet.REQ, id=number).SerializeToString())
        except RpcError:
            pass
        if is_rude:
            call.stream.cancel()
        else:
            call.stream.end()
        assert call.outcome() is not None


@given(trees, st.integers(0, 60))
def test_an_output_that_is_cut_anywhere_has_whole_files_only(tree: Tree, cut: int) -> None:
    with on_disk(tree) as root:
        dest = root.parent / "dest"
        sending = start({"context": str(root)}, ask_for())
        receiving = Call(output_handler({0: DirectoryTarget(str(dest))}))
        back = threading.Thread(target=relay, args=(receiving.stream, sending.stream))
        back.start()
        try:
            for _ in range(cut):
                message = sending.stream.receive()
                if message is None:
                    break
                receiving.stream.send(message)
        except RpcError:
            pass
        receiving.stream.cancel()
        back.join()
        receiving.wait()
        sending.stream.cancel()
        sending.wait()
        whole = dict(walk_tree(tree))
        for path, node in walk_tree(read_tree(dest) if dest.exists() else {}):
            assert path in whole
            if isinstance(node, File):
                assert node == whole[path]
        shutil.rmtree(root)
