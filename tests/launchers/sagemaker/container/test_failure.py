"""The failure file: at most 1,000 characters, the first cause, and always what to do next."""

from policylab.launchers.sagemaker.container.failure import (
    MAX_CHARACTERS,
    failure_text,
    room_for_failure,
    write_failure,
)


def test_a_long_cause_is_cut_and_the_facts_stay():
    facts = ["host algo-1, group learner", "resume with: policylab resume runs/x"]
    text = failure_text("ValueError: " + "x" * 5000, facts=facts)
    assert len(text) == MAX_CHARACTERS
    assert text.startswith("ValueError: xxx")
    assert text.splitlines()[0].endswith("...")
    assert text.splitlines()[1:] == facts


def test_facts_beyond_reason_leave_a_text_of_the_right_length():
    assert len(failure_text("boom", facts=["y" * 5000])) == MAX_CHARACTERS


def test_the_first_cause_counts(tmp_path):
    file = tmp_path / "output" / "failure"
    write_failure(file, "first")
    write_failure(file, "second")
    assert file.read_text() == "first"
    file.write_text("  \n")
    write_failure(file, "third")
    assert file.read_text() == "third"


def test_room_is_kept_until_it_is_needed_and_nothing_is_left_of_it(tmp_path):
    file = tmp_path / "output" / "failure"
    with room_for_failure(file):
        (room,) = file.parent.iterdir()
        assert room.stat().st_size >= MAX_CHARACTERS
        write_failure(file, "boom")
        assert list(file.parent.iterdir()) == [file]
    with room_for_failure(file):
        pass
    assert list(file.parent.iterdir()) == [file]
