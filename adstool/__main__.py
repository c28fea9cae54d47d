"""`python -m adstool` is the same as the `adstool` command."""

from adstool.commands import main

if __name__ == "__main__":
    main()
