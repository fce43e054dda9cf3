#!/usr/bin/env python
"""Django's command line, with private servers where the environment names none."""

import os
import sys


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    if not os.environ.get("DATABASE_URL") or not os.environ.get("REDIS_URL"):
        from config import private_servers

        private_servers.ensure()
    try:
        from django.core.management import execute_from_command_line
    except ImportError as error:
        raise SystemExit("Django is not installed here: run `make setup`.") from error
    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
