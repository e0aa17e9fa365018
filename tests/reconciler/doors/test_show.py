"""What people read: stories on one line, plain off a terminal, coloured on one, and never steering it."""

import dataclasses
import io
import os
import pty

import pytest
from hypothesis import given
from hypothesis import strategies as st

from desired.resource import ResourceId
from desired.store import JournalRow
from reconciler.backlog import journal_row
from reconciler.contract import ActionRecord, Outcome, ResourceStatus, Scope, Verb
from reconciler.doors import words
from reconciler.doors.journal import pass_record
from reconciler.doors.show import Line, Printer, once_lines, problem_lines, status_lines, story_lines
from reconciler.report import OnceResult, Pause, Problem, Stream
from tests.reconciler.doors.fakes import NOW, REPAIR, STATUS


def texts(lines):
    return [line.text for line in lines]


def test_a_repair_reads_like_a_story():
    first, second, third, fourth = texts(story_lines(REPAIR))
    assert first.startswith(f"{words.clock(REPAIR.at)}  port/patch-tun")
    assert "was deleted -> created again" in first
    assert first.endswith("1.4 ms")
    assert "tag differs (tag=2 -> tag=1) -> set back" in second
    assert "not declared -> delete withheld by budget" in third
    assert "pending: names a port that is not there (waits for port/tap9, ovsdb)" in fourth


def test_a_long_pass_is_summed_up():
    action = ActionRecord(ResourceId("flow", "x"), Verb.CREATE, "missing", "", "", "done")
    entry = dataclasses.replace(REPAIR, actions=(action,) * 10_000, findings=())
    lines = texts(story_lines(entry))
    assert len(lines) == words.STORY_LINES + 1
    assert "9980 flow (create: done)" in lines[-1]


def test_a_pass_with_nothing_to_tell_is_still_one_line():
    (line,) = texts(story_lines(dataclasses.replace(REPAIR, actions=(), findings=(), scope=Scope("flow", "br-int"))))
    assert "flow/br-int" in line
    assert "converged (event)" in line


def test_status_tells_everything_that_is_not_right():
    status = dataclasses.replace(STATUS, pauses=(Pause("flow", "cable work", NOW, NOW + 1800, "ann"),))
    text = "\n".join(texts(status_lines(status, NOW)))
    for part in (
        "net1: conflict",
        "2 bridges, 5 ports",
        "last converged  2 min ago",
        "flow is paused by ann",
        "for another 30 min: cable work",
        "deletes of 9 ports wait: revision abc123 may delete 3 of the 10 we own",
        "(declared at a.yaml:3:1)",
        "net.yaml:3:5: bridges.br-int: unknown key",
        "did you mean 'fail_mode'?",
        "flow            not listening: connecting",
    ):
        assert part in text
    assert text.isprintable() or all(line.isprintable() for line in text.splitlines())


def test_a_status_that_is_long_is_cut_unless_asked():
    status = dataclasses.replace(STATUS, not_right=STATUS.not_right * 50)
    assert "  … 30 more (-v shows all)" in texts(status_lines(status, NOW))
    assert sum("    bridge/" in text for text in texts(status_lines(status, NOW, verbose=True))) == 50


def units(count, reason="systemd does not answer", **fields):
    return [
        ResourceStatus(ResourceId("service", f"u{n}"), Outcome.PENDING, reason, NOW, **fields) for n in range(count)
    ]


def test_what_is_not_right_for_one_reason_is_told_with_the_reason_once():
    other = ResourceStatus(ResourceId("port", "tap0"), Outcome.PENDING, "no such bridge", NOW)
    status = dataclasses.replace(STATUS, budgets=(), not_right=(*units(3, origin="a.yaml:3:1"), other))
    lines = texts(status_lines(status, NOW))
    (reason,) = [line for line in lines if "systemd does not answer" in line]
    assert "3 alike" in reason
    start = lines.index(reason)
    assert lines[start + 1] == "    service/u0  (declared at a.yaml:3:1)"
    assert "port/tap0" in lines[start + 4]


def test_the_budget_s_sentence_stands_once_above_what_it_withholds():
    withheld = units(30, "9 deletes of kind service, 3 of 10 are allowed; 'reconcile approve abc123'", gate="budget")
    status = dataclasses.replace(STATUS, not_right=withheld)
    for verbose in (False, True):
        lines = texts(status_lines(status, NOW, verbose=verbose))
        assert sum("reconcile approve" in line for line in lines) == 1
        assert "not as declared:" not in lines
        assert sum("service/u" in line for line in lines) == (30 if verbose else 20)


def test_before_anything_was_read_nobody_says_that_nothing_is_declared():
    status = dataclasses.replace(STATUS, revision="", resources={}, config_problems=())
    assert "  declared        not known yet: still reading what is declared" in texts(status_lines(status, NOW))
    wrong = dataclasses.replace(STATUS, revision="", resources={})
    assert "  declared        nothing usable yet" in texts(status_lines(wrong, NOW))


def test_a_plan_ends_with_how_much_there_is_to_do():
    planned = tuple(dataclasses.replace(action, result="planned") for action in REPAIR.actions)
    passes = (dataclasses.replace(REPAIR, actions=planned, findings=()),)
    lines = texts(once_lines(OnceResult(Outcome.PENDING, 2, passes, revision="abc123", seconds=0.01), dry_run=True))
    assert "was deleted -> would create" in lines[0]
    assert lines[-1] == "plan: 3 planned (revision abc123, 10.0 ms)"
    left = OnceResult(Outcome.CONFLICT, 4, not_right=STATUS.not_right)
    assert texts(once_lines(left, dry_run=True))[-1].startswith("plan: nothing can be done now")
    done = texts(once_lines(OnceResult(Outcome.CONVERGED, 0, timed_out=True), dry_run=False))
    assert done == ["converged: nothing to do (revision none, 0.0 ms); the time was over before it was done"]


def test_a_problem_has_its_place_and_what_would_be_right():
    problem = Problem("unknown key 'fail_mod'", "net.yaml", 3, 5, "bridges.br-int", "did you mean 'fail_mode'?")
    assert texts(problem_lines([problem])) == [
        "net.yaml:3:5: bridges.br-int: unknown key 'fail_mod'",
        "    did you mean 'fail_mode'?",
    ]


@given(st.text())
def test_no_text_steers_a_terminal_or_breaks_a_line(text):
    assert words.clean(text).isprintable()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0014, "1.4 ms"),
        (0.9999, "999.9 ms"),
        (12, "12.0 s"),
        (180, "3 min"),
        (7200, "2 h"),
        (345600, "4 d"),
        (-1, "0.0 ms"),
    ],
)
def test_durations_in_words(seconds, text):
    assert words.duration(seconds) == text


def test_off_a_terminal_and_with_no_color_output_is_plain(monkeypatch):
    out = io.StringIO()
    Printer(out=out).line(Line("held", "bold green"))
    assert out.getvalue() == "held\n"
    monkeypatch.setenv("NO_COLOR", "1")
    assert on_a_terminal() == b"held\r\n"


def test_on_a_terminal_it_is_coloured_and_markup_in_names_is_text(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert b"\x1b[" in on_a_terminal()
    assert b"[red]x[/red]" in on_a_terminal("[red]x[/red]")


def on_a_terminal(text="held"):
    main, worker = pty.openpty()
    with os.fdopen(worker, "w") as out:
        Printer(out=out).line(Line(text, "bold green"))
        said = os.read(main, 1000)
    os.close(main)
    return said


def test_the_journal_s_rows_read_back_as_the_passes_they_were():
    assert pass_record(journal_row(REPAIR)) == dataclasses.replace(
        REPAIR, actions=tuple(dataclasses.replace(a, drift=read.drift) for a, read in read_back())
    )


def read_back():
    return zip(REPAIR.actions, pass_record(journal_row(REPAIR)).actions, strict=True)


def test_a_journal_row_that_was_cut_says_so():
    row = JournalRow(
        1, NOW, "flow/br-int", "event", "r", "converged", 0.1, 0.1, ({"result": "omitted", "detail": "9800 more"},)
    )
    (line,) = texts(story_lines(pass_record(row)))
    assert "9800 more" in line


def test_several_of_a_kind_are_named_as_in_english() -> None:
    said = [words.count(2, kind) for kind in ("bridge", "address", "held_port", "ini")]
    assert said == ["2 bridges", "2 addresses", "2 held ports", "2 INI keys"]
    assert words.count(1, "address") == "1 address"


def test_a_place_that_the_reason_names_is_not_named_again() -> None:
    (status, *_) = STATUS.not_right
    status = dataclasses.replace(status, origin="a.yaml:3:1", gate="")
    assert words.why(dataclasses.replace(status, reason="is missing")) == "is missing (declared at a.yaml:3:1)"
    told = "'adopt: true' at a.yaml:3:1 takes it over"
    assert words.why(dataclasses.replace(status, reason=told)) == told


def test_a_stream_on_which_silence_means_nothing_does_not_say_never() -> None:
    streams = (Stream("openflow br-provider", True, last_event=NOW - 2), Stream("systemd", True))
    lines = texts(status_lines(dataclasses.replace(STATUS, streams=streams), NOW, verbose=True))
    assert "  openflow br-provider  listening, last event 2.0 s ago" in lines
    assert "  systemd               listening" in lines
