"""The reader contract over NBD, from a server of the tests' own over TCP and a unix socket; tests/e2e has nbdkit and qemu-nbd."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.core.ranges import merge
from reconciler.errors import RetryableError, TerminalError, UserError
from reconciler.wire.nbd import NbdReader
from tests.contract.nbd_server import BLOCK, NbdServer
from tests.contract.suite_disk import KIB, MIB, CountingClock, ReaderContract, ReaderSite, content

SIZE = 3 * MIB


class NbdSite(ReaderSite):
    def __init__(self, server: NbdServer) -> None:
        self.server, self.faults, self.clock = server, server.faults, CountingClock()
        self.content = server.path.read_bytes()

    def open(self) -> NbdReader:
        return NbdReader.open(self.server.url, len(self.content), self.clock, 5.0)


@pytest.fixture(params=["tcp", "unix", "simple"])
def site(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[NbdSite]:
    (tmp_path / "source").write_bytes(content(SIZE))
    server = NbdServer(tmp_path / "source", str(tmp_path / "s") if request.param == "unix" else None)
    server.structured = request.param != "simple"
    yield NbdSite(server)
    server.close()


class TestNbd(ReaderContract):
    pass


class TestBlocks:
    def test_a_server_that_takes_whole_blocks_only_is_asked_for_those(self, site: NbdSite) -> None:
        site.server.least = 4096
        reader = site.open()
        assert ReaderContract.read(reader, 4097, 10_000) == site.content[4097:14_097]
        assert all(not offset % 4096 and not length % 4096 for offset, length in site.server.reads)
        reader.close()

    def test_a_request_is_no_longer_than_the_server_allows(self, site: NbdSite) -> None:
        site.server.most = 128 * KIB
        reader = site.open()
        assert ReaderContract.read(reader, 1000, MIB) == site.content[1000 : MIB + 1000]
        assert max(length for _, length in site.server.reads) <= 128 * KIB
        reader.close()


@pytest.fixture
def tcp(tmp_path: Path) -> Iterator[NbdSite]:
    (tmp_path / "source").write_bytes(content(MIB) + bytes(MIB) + b"x" + bytes(MIB - 1))
    server = NbdServer(tmp_path / "source")
    yield NbdSite(server)
    server.close()


class TestExtents:
    def test_data_is_what_is_not_zero_and_neighbours_are_one(self, tcp: NbdSite) -> None:
        reader = tcp.open()
        ranges = reader.data_ranges()
        assert ranges is not None
        got = list(ranges)
        assert got == merge(got) and got[-1] == (2 * MIB, BLOCK) and sum(got[-2]) <= MIB
        reader.close()

    def test_a_hole_that_is_not_promised_to_be_zero_is_read(self, tcp: NbdSite) -> None:
        tcp.server.opaque = {20}
        reader = tcp.open()
        assert (20 * BLOCK, BLOCK) in list(reader.data_ranges() or ())
        reader.close()

    def test_a_server_without_block_status_cannot_tell(self, tcp: NbdSite) -> None:
        tcp.server.contexts = {}
        reader = tcp.open()
        assert reader.data_ranges() is None
        reader.close()

    def test_a_bitmap_says_what_changed(self, tcp: NbdSite) -> None:
        name = "qemu:dirty-bitmap:since-friday"
        tcp.server.contexts[name] = 9
        tcp.server.dirty = {3, 4, 40}
        reader = tcp.open()
        dirty = [(offset, length) for offset, length, flags in reader.extents(name) if flags]
        assert dirty == [(3 * BLOCK, 2 * BLOCK), (40 * BLOCK, BLOCK)]
        with pytest.raises(TerminalError, match="ContextMissing"):
            list(reader.extents("qemu:dirty-bitmap:other"))
        reader.close()

    def test_a_fault_between_two_questions_is_not_seen(self, tcp: NbdSite) -> None:
        reader = tcp.open()
        want = list(reader.data_ranges() or ())
        tcp.faults.script(".RB")
        assert list(reader.data_ranges() or ()) == want and tcp.faults.spent
        reader.close()


class TestRefusals:
    @pytest.mark.parametrize(
        ("bad", "error"),
        [
            ("offset", "NbdWrong"),
            ("cookie", "NbdWrong"),
            ("short", "ShortRead"),
            ("twice", "ShortRead"),
            ("silent", "ShortRead"),
        ],
    )
    def test_a_server_that_lies_is_an_error_not_wrong_bytes(self, tcp: NbdSite, bad: str, error: str) -> None:
        tcp.server.bad = bad
        reader = tcp.open()
        with pytest.raises((TerminalError, RetryableError), match=error):
            ReaderContract.read(reader, 0, 3 * BLOCK)
        tcp.server.bad = ""
        assert ReaderContract.read(reader, 0, 3 * BLOCK) == tcp.content[: 3 * BLOCK]
        reader.close()

    def test_a_block_status_that_says_nothing_does_not_loop(self, tcp: NbdSite) -> None:
        tcp.server.bad = "silent"
        reader = tcp.open()
        with pytest.raises(TerminalError, match="NbdWrong"):
            list(reader.data_ranges() or ())
        reader.close()

    def test_another_size_is_another_disk(self, tcp: NbdSite) -> None:
        reader = NbdReader.open(tcp.server.url, len(tcp.content) - 512, CountingClock(), 5.0)
        with pytest.raises(TerminalError, match="SourceChanged"):
            ReaderContract.read(reader, 0, 1)
        reader.close()

    def test_an_export_that_is_not_there(self, tcp: NbdSite) -> None:
        reader = NbdReader.open(tcp.server.url + "x", len(tcp.content), CountingClock(), 5.0)
        with pytest.raises(TerminalError, match="SourceNotFound"):
            ReaderContract.read(reader, 0, 1)
        reader.close()

    def test_nobody_listens(self, tmp_path: Path) -> None:
        reader = NbdReader.open(f"nbd+unix:///?socket={tmp_path}/none", MIB, CountingClock(), 5.0)
        with pytest.raises(RetryableError, match="SourceUnreachable"):
            ReaderContract.read(reader, 0, 1)

    @pytest.mark.parametrize("url", ["nbds://host/x", "nbd://user@host/x", "nbd+unix:///x", "https://host/x", "nbd:///x"])
    def test_a_url_that_is_none(self, url: str) -> None:
        with pytest.raises(UserError, match="SourceUrlInvalid"):
            NbdReader.open(url, MIB, CountingClock())
