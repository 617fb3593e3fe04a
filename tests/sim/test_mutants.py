"""The deliberate bugs, without hunting them: ``make mutants`` takes an hour."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.sim.mutants import PAGES, main, mutated
from tests.sim.mutations import MUTANTS, Mutant
from tests.sim.vendors.mutations import MUTANTS as VENDOR_MUTANTS
from tests.sim.worlds_mutations import MUTANTS as WORLD_MUTANTS

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("mutant", [*MUTANTS, *VENDOR_MUTANTS, *WORLD_MUTANTS], ids=lambda mutant: mutant.name)
def test_each_finds_its_place_and_is_a_program(mutant: Mutant) -> None:
    text = (ROOT / mutant.path).read_text(encoding="utf-8")
    changed = mutated(text, mutant)
    assert changed != text
    if mutant.path.endswith(".py"):
        compile(changed, mutant.path, "exec")
    if mutant.also is not None:
        test_each_finds_its_place_and_is_a_program(mutant.also)


def test_a_place_that_is_gone_is_an_error() -> None:
    with pytest.raises(ValueError, match="its place is 0 times in"):
        mutated("nothing", MUTANTS[0])


def test_names_are_their_own() -> None:
    names = [mutant.name for mutant in (*MUTANTS, *VENDOR_MUTANTS, *WORLD_MUTANTS)]
    assert len(set(names)) == len(names)


def test_a_name_that_is_none_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["dead letters go everywhere"])
    assert "no mutant has 'dead letters go everywhere' in its name" in capsys.readouterr().err


def test_a_part_of_the_mutants_is_not_written_over_the_table(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    page = tmp_path / "mutants.md"
    monkeypatch.setitem(PAGES, "own", page)
    with pytest.raises(SystemExit, match="2"):
        main(["--write", MUTANTS[0].name])
    assert "--write is for all of them" in capsys.readouterr().err
