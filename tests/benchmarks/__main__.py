"""make bench: on the servers and settings of the tests. ARGS='planning' runs that one alone."""

import os
import sys

import django

from tests import environment  # noqa: F401  (starts the servers, sets the environment)

os.environ["DJANGO_SETTINGS_MODULE"] = "config.settings"
os.environ["LOG_LEVEL"] = "WARNING"

if __name__ == "__main__":
    django.setup()
    from tests.benchmarks import pages, planning, searching, sending  # they need Django set up

    for name, benchmark in (
        ("pages", pages), ("sending", sending), ("planning", planning), ("searching", searching),
    ):  # fmt: skip
        if name in (sys.argv[1:] or (name,)):
            benchmark.main()
