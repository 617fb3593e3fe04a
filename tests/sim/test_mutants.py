"""The deliberate bugs, without hunting them: ``make mutants`` takes an hour."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.sim.mutants import PAGES, ROOT, main
from tests.sim.mutations import MUTANTS
from tests.sim.vendors.mutations import MUTANTS as VENDOR_MUTANTS
from tests.sim.worlds_mutations import MUTANTS as WORLD_MUTANTS
from tests.support.mutation import Mutant, mutated


@pytest.mark.parametrize("mutant", [*MUTANTS, *VENDOR_MUTANTS, *WORLD_MUTANTS], ids=lambda mutant: mutant.name)
def test_each_finds_its_place_and_is_a_program(mutant: Mutant) -> None:
    changed = mutated(mutant, ROOT)
    assert changed
    for path, text in changed.items():
        if path.suffix == ".py":
            compile(text, path, "exec")


def test_names_are_their_own() -> None:
    names = [mutant.name for mutant in (*MUTANTS, *VENDOR_MUTANTS, *WORLD_MUTANTS)]
    assert len(set(names)) == len(names)


def test_an_unknown_name_of_a_mutant_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
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
