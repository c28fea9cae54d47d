"""Bad input of every kind, made in code with its truth: tests/bench/fuzz.py runs thousands of cases."""
