"""``python -m tools.words``: do pages, help texts, keys and errors do without words that are hard to read?"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGES = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "docs/**/*.md", "clients/*/README.md")
PLAIN = {
    r"mend(s|ed|ing)?": "fix",
    r"(?<!there )(is|are|was|were) no(?! longer)(?! more)": "is not a",
    r"at the most": "at most",
    r"all the same": "anyway",
    r"(?<!as )so many": "this number of",
    r"for so long": "for this time",
    r"as long only": "only for this time",
    r"anew": "again",
    r"who(s)?ever": "a noun: the client, the caller, the process that",
    r"without a word": "silently",
}
"""Words to avoid (regular expressions of whole words) -> what to write."""
AVOIDED = {
    re.compile(rf"\b({words})\b".replace(" ", r"\s"), re.IGNORECASE | re.ASCII): plain for words, plain in PLAIN.items()
}


def main() -> int:
    """0 if no text uses a word to avoid, 1 if one does."""
    problems = [*in_pages(ROOT), *in_strings(ROOT)]
    print("\n".join(problems) or "no text uses a word to avoid")
    return 1 if problems else 0


def in_pages(root: Path) -> Iterator[str]:
    """One line for each word to avoid in a page. What is in backquotes is a name and stays."""
    for page in sorted(page for pattern in PAGES for page in root.glob(pattern)):
        text = re.sub(r"`[^`\n]*`", "``", page.read_text(encoding="utf-8"))
        yield from (f"{page.relative_to(root)}:{line}: {found}" for line, found in judge(text))


def in_strings(root: Path) -> Iterator[str]:
    """One line for each word to avoid in a string or docstring of the router. A string without a space is a name."""
    for path in sorted(root.glob("router/**/*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            match node:
                case ast.Constant(value=str(text)) if " " in text:
                    for line, found in judge(text):
                        yield f"{path.relative_to(root)}:{node.lineno + line - 1}: {found}"


def judge(text: str) -> Iterator[tuple[int, str]]:
    """(line, what to write instead) for each word to avoid."""
    for words, plain in AVOIDED.items():
        for found in words.finditer(text):
            said = " ".join(found[0].split())
            yield text.count("\n", 0, found.start()) + 1, f'"{said}": write "{plain}"'


if __name__ == "__main__":
    sys.exit(main())
