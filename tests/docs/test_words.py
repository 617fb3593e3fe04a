"""Pages, help texts, keys and errors do without words that are hard to read."""

from __future__ import annotations

from pathlib import Path

from tools.words import in_pages, in_strings, judge

ROOT = Path(__file__).parents[2]


def test_no_text_uses_a_word_to_avoid() -> None:
    assert [*in_pages(ROOT), *in_strings(ROOT)] == []


def test_a_word_to_avoid_is_found_with_its_line() -> None:
    text = "There is no limit.\nA name is no\naddress; it holds ten at the most, as long as it is no longer than that."
    assert list(judge(text)) == [(2, '"is no": write "is not a"'), (3, '"at the most": write "at most"')]


def test_names_stay(tmp_path: Path) -> None:
    (tmp_path / "router").mkdir()
    (tmp_path / "README.md").write_text("The key `mend` is documented.\n\nIt mends.\n", encoding="utf-8")
    code = '"""This.\n\nIt is no name."""\nNAME = "mend"\nraise ValueError(f"mend the key {NAME}")\n'
    (tmp_path / "router/code.py").write_text(code, encoding="utf-8")
    assert list(in_pages(tmp_path)) == ['README.md:3: "mends": write "fix"']
    assert list(in_strings(tmp_path)) == [
        'router/code.py:3: "is no": write "is not a"',
        'router/code.py:5: "mend": write "fix"',
    ]
