"""What tests of tutorials take for a match, and what they have the reader do."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tutorial import FOLDER, LINES, NUMBERS, Step, difference, follow, steps, write

REAL = """
 table      rows
 ───────────────
 events  140,110

click auc 0.745 (0.730, 0.757)
Next: adstool run
"""


@pytest.mark.parametrize(
    "shown",
    [
        ["table rows", "──", "events   140,110", "click auc 0.745 (0.730, 0.757)", "Next: adstool run"],
        ["...", "events ...", "...", "Next: adstool run"],
        ["...", "click auc 0.70 (0.69, 0.80)", "..."],
        ["...", "...", "Next: ... run"],
        ["..."],
    ],
)
def test_what_matches(shown: list[str]) -> None:
    assert difference(tuple(shown), REAL) == ""


@pytest.mark.parametrize(
    ("shown", "unlike"),
    [
        (["...", "events 140,111", "..."], "events 140,111"),  # whole numbers are exact
        (["...", "click auc 0.5 (0.730, 0.757)", "..."], "click auc 0.5 (0.730, 0.757)"),
        (["...", "click auc 745 (0.730, 0.757)", "..."], "click auc 745 (0.730, 0.757)"),
        (["events 140,110", "..."], "events 140,110"),  # something stood before it
        (["...", "Next: adstool run", "events ...", "..."], "events ..."),  # in this order alone
        (["...", "events 140,110"], "(nothing more after 'events 140,110')"),
        ([], "(nothing)"),
    ],
)
def test_what_does_not(shown: list[str], unlike: str) -> None:
    assert difference(tuple(shown), REAL) == unlike


def test_what_varies_is_not_compared_and_the_rest_is() -> None:
    shown = ("ad  click", "a7  3.1 %", "Next: adstool run")
    assert difference(shown, "ad click\na9 8.2 %\nNext: adstool run", NUMBERS) == ""
    assert difference(shown, "ad click\nb9 8.2 %\nNext: adstool run", NUMBERS) == "a7 3.1 %"
    assert difference(shown, "ad click\nb9 8.2 %\nNext: adstool run", LINES) == ""
    assert difference(shown, "ad save\na9 8.2 %\nNext: adstool run", LINES) == "ad click"
    assert difference(shown, "ad click\nNext: adstool run", LINES) != ""


TEXT = """
```toml adstool.toml
[funnel]
slate = 3

[[actions]]
name = "closeup"
```
Words, and a block of no file:
```toml
[nothing]
```
<!-- lines vary: trained -->
```console
$ cat <<'X' | wc -l
> one
> two
> X
2
$ true
```
"""


def test_the_steps_of_a_tutorial() -> None:
    toml = '[funnel]\nslate = 3\n\n[[actions]]\nname = "closeup"\n'
    assert list(steps(TEXT)) == [
        Step(file="adstool.toml", content=toml),
        Step("cat <<'X' | wc -l\none\ntwo\nX", ("2",), LINES),
        Step("true", (), LINES),
    ]


def test_keys_go_below_the_headings_that_are_there(tmp_path: Path) -> None:
    path = tmp_path / "adstool.toml"
    path.write_text("# first\n[funnel]\n# slate = 10\n\n[auction]\n")
    write(path, next(steps(TEXT)).content + "[index]\nmin_recall = 0.9\n")
    assert path.read_text() == (
        "# first\n[funnel]\nslate = 3\n\n# slate = 10\n\n[auction]\n"
        '\n[[actions]]\nname = "closeup"\n\n[index]\nmin_recall = 0.9\n'
    )


def test_a_command_that_fails_or_prints_otherwise_fails_the_test(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tutorial.FOLDER", tmp_path)

    def tell(block: str) -> None:
        (tmp_path / "one.md").write_text(f"```console\n{block}\n```\n")
        follow("one.md", tmp_path)

    tell("$ mkdir made\n$ cd made\n$ pwd\n.../made")
    tell("$ echo error: no; exit 3\nerror: no\n$ echo $?\n3")
    for wrong in ("$ exit 1", "$ echo yes\nno", "$ echo error: yes\nerror: yes", "$ echo Traceback\n..."):
        with pytest.raises(AssertionError):
            tell(wrong)


def test_every_tutorial_is_followed_by_a_test() -> None:
    tests = Path(__file__).parent
    followed = "".join(path.read_text() for path in tests.glob("test_tutorial_*.py"))
    for path in FOLDER.glob("*.md"):
        text = path.read_text(encoding="utf-8")
        if any(step.command for step in steps(text)):
            assert f'follow("{path.name}"' in followed, path.name
        for link in re.findall(r"\]\((?!https?:)([^)#]+)\)", text):
            assert (FOLDER / link).exists(), f"{path.name}: {link}"
