"""The environment of the tests: a pytest plugin, named in pyproject.toml.

config.settings reads the environment once, when it is imported, and pytest-django imports it
before any conftest.py runs. `-p tests.environment` is loaded earlier still. The values replace
what a developer's shell may hold, so that a test means the same everywhere; only DATABASE_URL and
REDIS_URL are taken from outside, where set.
"""

import os

from config import private_servers

private_servers.ensure()

os.environ.update(
    {
        # After ensure(), which turns it on where it starts a database.
        "DEBUG": "0",
        "SECRET_KEY": "only-for-tests-and-long-enough-to-sign-every-link-in-them",
        "ADDRESS_HASH_KEY": "only-for-tests-and-long-enough-to-hash-every-address",
        # The development machine's Redis is shared: these keep its keys and its worker apart, and
        # those of each process that pytest-xdist divides the tests among.
        "REDIS_KEY_PREFIX": f"paperround-test-{os.environ.get('PYTEST_XDIST_WORKER', 'main')}:",
        # No test leaves this machine: nobody listens there.
        "HARVEST_SOURCES": "",
        "ARXIV_OAI_URL": "http://127.0.0.1:9/oai",
        "ARXIV_API_URL": "http://127.0.0.1:9/api",
        "ARXIV_RSS_URL": "http://127.0.0.1:9/rss",
        "HUGGINGFACE_URL": "http://127.0.0.1:9/daily_papers",
        "SITE_URL": "http://testserver",
        "POSTAL_ADDRESS": "Paperround, 1 Example Street, Exampletown",
        "CONTACT_ADDRESS": "contact@papers.example",
        "DEFAULT_FROM_EMAIL": "Paperround <daily@papers.example>",
    }
)
