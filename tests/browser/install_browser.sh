#!/usr/bin/env bash
# Makes sure that the browser tests find a Chromium. Never fails: without one, they alone cannot
# run, and they say so.
set -uo pipefail

if command -v chromium >/dev/null; then
    exit 0
fi
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo 'Installing chromium with apt-get for the browser tests ...'
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    # Without a font, a page is empty boxes.
    apt-get install -y -qq --no-install-recommends chromium fonts-liberation >/dev/null
    if command -v chromium >/dev/null; then
        exit 0
    fi
fi
if .venv/bin/python -m playwright install chromium; then
    exit 0
fi
cat >&2 <<'MESSAGE'
**************************************************************************************************
  No Chromium: the browser tests cannot run. Install `chromium` with the package manager, or run
  .venv/bin/python -m playwright install chromium
**************************************************************************************************
MESSAGE
exit 0
