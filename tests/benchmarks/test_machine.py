"""Whether others use the machine, from texts of /proc."""

import os

import pytest

from benchmarks import machine
from benchmarks.machine import BusyMachineError, Usage, machine_ticks, process_ticks, require_idle

pytestmark = pytest.mark.quick

STAT = "cpu  100 20 30 800 40 5 3 2 0 0\ncpu0 50 10 15 400 20 2 1 1 0 0\nintr 1\n"
PROCESS = "77 (a (strange) name) S 1 77 77 0 -1 4194304 1 2 3 4 250 31 9 9 20 0 8 0 1 2 3\n"


def test_machine_ticks():
    """Idle and waiting for a disk are no use; what a hypervisor took away (steal) is."""
    assert machine_ticks(STAT) == (1000, 100 + 20 + 30 + 5 + 3 + 2)


def test_process_ticks():
    """utime and stime, the 14th and 15th field, whatever the name holds."""
    assert process_ticks(PROCESS) == 250 + 31


def test_others_are_what_neither_idled_nor_was_ours():
    before, after = Usage(total=1000, busy=300, own=100), Usage(total=1400, busy=420, own=180)
    assert before.others_until(after) == pytest.approx((120 - 80) / 400)


def test_ticks_counted_for_us_a_moment_too_early_are_not_negative():
    before, after = Usage(total=1000, busy=300, own=100), Usage(total=1010, busy=304, own=105)
    assert before.others_until(after) == 0


def test_own_processes_are_told_from_others(tmp_path, monkeypatch):
    (tmp_path / "stat").write_text(STAT)
    for pid in (str(os.getpid()), "77"):
        (tmp_path / pid).mkdir()
        (tmp_path / pid / "stat").write_text(PROCESS)
    monkeypatch.setattr(machine, "PROC", tmp_path)
    assert Usage.now() == Usage(1000, 160, 281)
    assert Usage.now([77]) == Usage(1000, 160, 2 * 281)


@pytest.mark.parametrize(("busy", "passes"), [(4, True), (6, False)])
def test_require_idle(monkeypatch, busy, passes):
    readings = iter([Usage(0, 0, 0), Usage(100, busy, 0)])
    monkeypatch.setattr(Usage, "now", lambda: next(readings))
    if passes:
        assert require_idle(seconds=0) == 0.04
    else:
        with pytest.raises(BusyMachineError, match=r"idle machine, found others using 6% .*--busy"):
            require_idle(seconds=0)


def test_a_busy_machine_can_be_allowed(monkeypatch):
    readings = iter([Usage(0, 0, 0), Usage(100, 60, 0)])
    monkeypatch.setattr(Usage, "now", lambda: next(readings))
    assert require_idle(seconds=0, allow_busy=True) == 0.6
