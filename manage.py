#!/usr/bin/env python
"""Django's command line, with private servers where the environment names none."""

import os
import sys

# These read and write files only. The settings want servers named all the same; nothing asks them.
WITHOUT_SERVERS = {"evaluate_ranking", "evaluate_trending", "rank_papers"}


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    if not os.environ.get("DATABASE_URL") or not os.environ.get("REDIS_URL"):
        if WITHOUT_SERVERS.intersection(sys.argv[1:2]):
            _name_no_servers()
        else:
            from config import private_servers

            private_servers.ensure()
    try:
        from django.conf import settings
        from django.core.exceptions import ImproperlyConfigured
        from django.core.management import execute_from_command_line
    except ImportError as error:
        raise SystemExit("Django is not installed here: run `make setup`.") from error
    try:
        settings.DEBUG  # noqa: B018  (reads the environment)
    except ImproperlyConfigured as error:
        raise SystemExit(f"A setting is wrong: {error}") from None
    execute_from_command_line(sys.argv)


def _name_no_servers() -> None:
    for name, url in (("DATABASE_URL", "postgres://none/none"), ("REDIS_URL", "redis://none")):
        if not os.environ.get(name):
            os.environ[name] = url
            # As config.private_servers does: whoever names none is at a development machine.
            os.environ.setdefault("DEBUG", "1")


if __name__ == "__main__":
    main()
