"""The crash matrix: what dies at each step of the day, and who got what after it.

`python -m tests.crash --write` writes docs/crash-matrix.md; test_crash_matrix.py holds it true.
The code under test is the project's, unchanged, in processes of their own: what kills them is a
tracer below it (worker.py) or the mail server it talks to (sink.py).
"""
