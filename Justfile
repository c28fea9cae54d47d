# The ways of working on adstool; extra words go to the command: just test -k auction

bin := if os_family() == "windows" { ".venv/Scripts" } else { ".venv/bin" }
python := bin / "python"

default:
    @just --list

# make the environment, development tools included
setup *words:
    test -x {{python}} || python3 -m venv .venv
    {{python}} -m pip install -q -e '.[dev]' {{words}}

# a workspace with the sample world, from logs to the report
demo *words:
    {{python}} -m adstool demo {{words}}

# the tests
test *words:
    {{python}} -m pytest -n 2 --dist loadfile {{words}}

# the tests with the lowest or the newest versions that pyproject.toml allows: just bounds lowest -k auction
bounds end *words:
    {{python}} .ci/bounds {{end}} {{words}}

# style, types and import layers
check:
    {{python}} -m ruff check .
    {{python}} -m ruff format --check .
    {{python}} -m mypy adstool commands
    {{bin}}/lint-imports

# README's table and reference of the verbs, from their help
reference:
    {{python}} -m adstool.commands._reference README.md

# this machine's figures, each beside its floor
bench *words:
    {{python}} -m adstool bench {{words}}

# delete what can be made again
clean:
    rm -rf build dist demo .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
