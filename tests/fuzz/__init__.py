"""Bad input of every kind, made in code with its truth beside it: tests/bench/fuzz.py runs thousands of cases."""
