from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline_definition.local.journal import Journal

ENTRIES = [{"number": number, "text": "ä\n" * number} for number in range(4)]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 200))
def test_a_journal_cut_off_anywhere_keeps_its_whole_entries_and_goes_on(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "journal.jsonl"
    path.unlink(missing_ok=True)
    journal = Journal(path)
    for entry in ENTRIES:
        journal.append(entry)
    data = path.read_bytes()
    path.write_bytes(data[: max(0, len(data) - cut)])
    begun = path.read_bytes().count(b"\n")
    kept = list(journal.entries())
    assert kept in (ENTRIES[: max(0, begun - 1)], ENTRIES[:begun])
    journal.append({"after": True})
    assert list(Journal(path).entries()) == [*kept, {"after": True}]


def test_entries_of_earlier_releases_whose_lines_end_with_a_newline_are_read_and_added_to(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_text('{"old": 1}\n{"old": 2}\n{"cut')
    Journal(path).append({"new": 3})
    assert list(Journal(path).entries()) == [{"old": 1}, {"old": 2}, {"new": 3}]


def test_rewriting_replaces_everything(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.append({"old": 1})
    journal.rewrite([{"new": 2}])
    assert list(journal.entries()) == [{"new": 2}]
