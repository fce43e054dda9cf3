"""make bench: on the servers and settings of the tests."""

import os

import django

from tests import environment  # noqa: F401  (starts the servers, sets the environment)

os.environ["DJANGO_SETTINGS_MODULE"] = "config.settings"
os.environ["LOG_LEVEL"] = "WARNING"

if __name__ == "__main__":
    django.setup()
    from tests.benchmarks import day  # its imports need Django set up

    day.main()
