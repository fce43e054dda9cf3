"""Every setting of Paperround, read from the environment (12-factor).

README's table says what each one means; a test compares the two. With no DATABASE_URL set,
manage.py has started a private server and turned DEBUG on: that is a development machine.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import django_stubs_ext
import environ
from django.core.exceptions import ImproperlyConfigured

django_stubs_ext.monkeypatch()  # ModelAdmin[Paper] is a type for mypy; this makes it run


@contextmanager
def _named(variable: str) -> Iterator[None]:
    """Say of which variable an error is."""
    try:
        yield
    except ValueError as error:
        raise ImproperlyConfigured(f"{variable} cannot be read: {error}.") from None


class Env(environ.Env):  # type: ignore[misc]  # it has no types
    def get_value(self, var: str, *args: Any, **kwargs: Any) -> Any:
        with _named(var):
            return super().get_value(var, *args, **kwargs)

    def bool(self, var: str, default: bool = False) -> bool:
        text = self.str(var, default=str(default)).strip().lower()
        if text not in (*self.BOOLEAN_TRUE_STRINGS, "", "false", "off", "n", "no", "0"):
            raise ImproperlyConfigured(f"{var} must be on or off, not {text!r}.")
        return text in self.BOOLEAN_TRUE_STRINGS


env = Env()
BASE_DIR = Path(__file__).resolve().parent.parent
VAR_DIR = BASE_DIR / "var"

DEBUG = env.bool("DEBUG", default=False)

if not env.str("DATABASE_URL", default="") or not env.str("REDIS_URL", default=""):
    raise ImproperlyConfigured(
        "DATABASE_URL and REDIS_URL must name a PostgreSQL and a Redis server. On a development "
        "machine run commands through manage.py, which starts private ones."
    )

SECRET_KEY = env.str("SECRET_KEY", default="only-for-development" if DEBUG else "")
if not SECRET_KEY:
    raise ImproperlyConfigured(
        "SECRET_KEY must be set: it signs every link in every mail. Make one with: "
        'python -c "import secrets; print(secrets.token_urlsafe(50))"'
    )
SECRET_KEY_FALLBACKS = env.list("SECRET_KEY_FALLBACKS", default=[])
# Keeps suppressed addresses as keyed hashes. Never rotated with SECRET_KEY: a new key would forget
# every address that must not be mailed again.
ADDRESS_HASH_KEY = env.str("ADDRESS_HASH_KEY", default="")

# --- The installation -----------------------------------------------------------------------------
SITE_NAME = env.str("SITE_NAME", default="Paperround")
SITE_URL = env.str("SITE_URL", default="http://127.0.0.1:8000").rstrip("/")
SITE_HOST = urlsplit(SITE_URL).hostname or ""
CURATORS_LINE = env.str("CURATORS_LINE", default="by the research community and our curators")
POSTAL_ADDRESS = env.str("POSTAL_ADDRESS", default="")
CONTACT_ADDRESS = env.str("CONTACT_ADDRESS", default="")
ALLOWED_HOSTS = env.list("ALLOWED_HOSTS", default=[SITE_HOST])
if DEBUG:
    ALLOWED_HOSTS += ["localhost", "127.0.0.1", "[::1]"]
CSRF_TRUSTED_ORIGINS = env.list("CSRF_TRUSTED_ORIGINS", default=[SITE_URL])

# --- The daily run --------------------------------------------------------------------------------
EDITION_FREEZE_AT = env.get_value("EDITION_FREEZE_AT", cast=time.fromisoformat, default=time(4))
EDITION_WINDOW_DAYS = env.int("EDITION_WINDOW_DAYS", default=3)
DEFAULT_TIME_ZONE = env.str("DEFAULT_TIME_ZONE", default="UTC")
DEFAULT_SEND_HOUR = env.int("DEFAULT_SEND_HOUR", default=7)
CONFIRMATION_DAYS = env.int("CONFIRMATION_DAYS", default=3)
SUBMISSIONS_PER_DAY = env.int("SUBMISSIONS_PER_DAY", default=3)
PREFERENCES_LINK_DAYS = env.int("PREFERENCES_LINK_DAYS", default=90)
PLAN_BATCH_SIZE = env.int("PLAN_BATCH_SIZE", default=1000)
RANKING_REFIT_HOURS = env.int("RANKING_REFIT_HOURS", default=24)
SEND_BATCH_SIZE = env.int("SEND_BATCH_SIZE", default=250)
SEND_CONNECTIONS = env.int("SEND_CONNECTIONS", default=1)
SEND_PROCESSES = env.int("SEND_PROCESSES", default=1)
SEND_LEASE_SECONDS = env.int("SEND_LEASE_SECONDS", default=600)
SEND_MAX_ATTEMPTS = env.int("SEND_MAX_ATTEMPTS", default=8)
UNKNOWN_OUTCOME = env.str("UNKNOWN_OUTCOME", default="hold")
if UNKNOWN_OUTCOME not in ("hold", "resend", "give_up"):
    raise ImproperlyConfigured("UNKNOWN_OUTCOME must be hold, resend or give_up.")
UNKNOWN_SETTLE_HOURS = env.int("UNKNOWN_SETTLE_HOURS", default=4)
SEND_RATE_PER_HOUR = env.int("SEND_RATE_PER_HOUR", default=0)
# Texts that newsletter.sending reads; a system check says what is wrong with them.
SEND_DOMAIN_RATES = env.str("SEND_DOMAIN_RATES", default="")
SEND_WARMUP_START = env.str("SEND_WARMUP_START", default="")
SEND_WARMUP_PLAN = env.str(
    "SEND_WARMUP_PLAN", default="50,100,500,1000,5000,10000,20000,40000,70000,100000"
)
RETAIN_DELIVERIES_DAYS = env.int("RETAIN_DELIVERIES_DAYS", default=180)
RETAIN_EVENTS_DAYS = env.int("RETAIN_EVENTS_DAYS", default=180)
SOFT_BOUNCE_LIMIT = env.int("SOFT_BOUNCE_LIMIT", default=5)
SOFT_BOUNCE_DAYS = env.int("SOFT_BOUNCE_DAYS", default=10)
POLICY_BOUNCE_PERCENT = env.int("POLICY_BOUNCE_PERCENT", default=10)

# --- Where papers come from -----------------------------------------------------------------------
# A development machine asks nobody unless it is told to.
HARVEST_SOURCES = env.list("HARVEST_SOURCES", default=[] if DEBUG else ["huggingface"])
ARXIV_CATEGORIES = env.list("ARXIV_CATEGORIES", default=[])
ARXIV_OAI_URL = env.str("ARXIV_OAI_URL", default="https://oaipmh.arxiv.org/oai")
ARXIV_API_URL = env.str("ARXIV_API_URL", default="https://export.arxiv.org/api/query")
ARXIV_RSS_URL = env.str("ARXIV_RSS_URL", default="https://rss.arxiv.org/rss")
HUGGINGFACE_URL = env.str("HUGGINGFACE_URL", default="https://huggingface.co/api/daily_papers")

# --- The dense view ------------------------------------------------------------------------------
ENCODER_DIR = Path(env.str("ENCODER_DIR", default=str(VAR_DIR / "encoder")))
ENCODER_HUB_URL = env.str("ENCODER_HUB_URL", default="https://huggingface.co").rstrip("/")
ENCODE_BATCH_SIZE = env.int("ENCODE_BATCH_SIZE", default=32)

# --- Mail -----------------------------------------------------------------------------------------
DEFAULT_FROM_EMAIL = env.str("DEFAULT_FROM_EMAIL", default="Paperround <daily@localhost>")
SERVER_EMAIL = env.str("SERVER_EMAIL", default=DEFAULT_FROM_EMAIL)
OPERATOR_ADDRESSES = env.list(
    "OPERATOR_ADDRESSES", default=[CONTACT_ADDRESS] if CONTACT_ADDRESS else []
)
# Where bounces come back to: each mail's return path is this with the delivery's signed token.
BOUNCE_ADDRESS = env.str("BOUNCE_ADDRESS", default="")
LIST_ID = env.str("LIST_ID", default=f"daily.{SITE_HOST}")
DEV_INBOX = Path(env.str("DEV_INBOX", default=str(VAR_DIR / "inbox")))
with _named("EMAIL_URL"):
    mail_server = env.email("EMAIL_URL", default="smtp://localhost:25")
if DEBUG and "EMAIL_URL" not in os.environ:
    mail_server["EMAIL_BACKEND"] = "newsletter.inbox.MaildirBackend"
elif mail_server["EMAIL_BACKEND"] == "django.core.mail.backends.smtp.EmailBackend":
    mail_server["EMAIL_BACKEND"] = "newsletter.smtp.SmtpBackend"
vars().update(mail_server)
EMAIL_BACKEND = env.str("EMAIL_BACKEND", default=mail_server["EMAIL_BACKEND"])
# Without one, a server that accepts and then says nothing holds a worker for ever.
EMAIL_TIMEOUT = env.int("EMAIL_TIMEOUT", default=30)
EMAIL_USE_LOCALTIME = False


ANYMAIL_SWITCHES = (
    *("_IGNORE_", "_DEBUG_", "_GENERATE_", "_USE_", "_WORKAROUND_", "_PREVENT_", "_VERIFY_"),
    *("_AUTO_CONFIRM_", "_TRACK_"),
)


def anymail_setting(name: str, text: str) -> object:
    """A variable as Anymail takes it. What it is shows by its name: a key may look like a number.

    Raises:
        ImproperlyConfigured: it cannot be read.
    """
    try:
        if name.endswith("_TIMEOUT"):
            return float(text)
        if name.endswith(("_DEFAULTS", "_PARAMS")):
            return json.loads(text)
    except ValueError as error:
        kind = "a number of seconds" if name.endswith("_TIMEOUT") else "an object in JSON"
        raise ImproperlyConfigured(f"{name} must be {kind}: {error}") from None
    if any(word in name for word in ANYMAIL_SWITCHES):
        return text.strip().lower() in env.BOOLEAN_TRUE_STRINGS
    return text


# Any ANYMAIL_… variable reaches django-anymail: ANYMAIL_MAILGUN_API_KEY, ANYMAIL_SES_…
ANYMAIL = {
    name.removeprefix("ANYMAIL_"): anymail_setting(name, value)
    for name, value in os.environ.items()
    if name.startswith("ANYMAIL_")
}

# --- What `manage.py doctor` asks DNS -------------------------------------------------------------
DOCTOR_DKIM_SELECTORS = env.list("DOCTOR_DKIM_SELECTORS", default=[])
DOCTOR_SENDING_IPS = env.list("DOCTOR_SENDING_IPS", default=[])
DOCTOR_DNS_SERVER = env.str("DOCTOR_DNS_SERVER", default="")

# --- Django ---------------------------------------------------------------------------------------
INSTALLED_APPS = [
    "newsletter",
    "papers",
    "anymail",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.postgres",
]
MIDDLEWARE = [
    "newsletter.probes.answer_probes",  # first: whatever host and scheme a load balancer uses
    "django.middleware.security.SecurityMiddleware",
    "config.browser_policy.restrict",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
ROOT_URLCONF = "config.urls"
WSGI_APPLICATION = "config.wsgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "config" / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "config.context.site",
            ],
            "builtins": [
                "newsletter.templatetags.subscribe_box",
                "newsletter.templatetags.readers",
            ],
        },
    }
]
if urlsplit(env.str("DATABASE_URL")).scheme not in ("postgres", "postgresql"):
    raise ImproperlyConfigured("DATABASE_URL must be postgres://user:password@host:port/name.")
with _named("DATABASE_URL"):
    database = env.db("DATABASE_URL")
DATABASES = {"default": {**database, "CONN_MAX_AGE": 600, "CONN_HEALTH_CHECKS": True}}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]
LANGUAGE_CODE = "en-gb"
TIME_ZONE = "UTC"
USE_TZ = True
FORMAT_MODULE_PATH = "config.formats"

STATIC_URL = "/static/"
STATIC_ROOT = BASE_DIR / "staticfiles"
STATICFILES_DIRS = [BASE_DIR / "config" / "static"]
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {
        "BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"
        if DEBUG
        else "whitenoise.storage.CompressedManifestStaticFilesStorage"
    },
}

# --- Security -------------------------------------------------------------------------------------
SECURE = SITE_URL.startswith("https://")
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = SECURE
SECURE_HSTS_SECONDS = env.int("SECURE_HSTS_SECONDS", default=31_536_000 if SECURE else 0)
SECURE_HSTS_INCLUDE_SUBDOMAINS = env.bool("SECURE_HSTS_INCLUDE_SUBDOMAINS", default=False)
SECURE_HSTS_PRELOAD = False
SECURE_SSL_REDIRECT = SECURE
# RFC 8058: a mail provider's POST follows no redirect, so a proxy that forwards plain http must
# not make the one-click address answer with one.
SECURE_REDIRECT_EXEMPT = [r"^unsubscribe/"]
if env.bool("BEHIND_TLS_PROXY", default=False):
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
# The admin's list of an edition: up to 190 rows of eight fields, each with what it showed.
DATA_UPLOAD_MAX_NUMBER_FIELDS = 2_000
SILENCED_SYSTEM_CHECKS = [
    "security.W005",  # HSTS for subdomains is the domain owner's decision: a setting
    "security.W021",  # and so is the preload list, which is hard to leave
]

# --- Celery ---------------------------------------------------------------------------------------
REDIS_KEY_PREFIX = env.str("REDIS_KEY_PREFIX", default="paperround:")
CELERY_BROKER_URL = env.str("REDIS_URL")
if urlsplit(CELERY_BROKER_URL).scheme not in ("redis", "rediss"):
    raise ImproperlyConfigured("REDIS_URL must be redis://host:port/number, or rediss:// with TLS.")
CELERY_BROKER_TRANSPORT_OPTIONS = {
    "global_keyprefix": REDIS_KEY_PREFIX,
    "visibility_timeout": 3600,
    "socket_timeout": 30,  # the default is none: a lost connection would be waited on for ever
    "socket_connect_timeout": 5,
    "socket_keepalive": True,
    "max_retries": 1,
    "interval_start": 0,  # the default, two seconds, is what a page would wait without Redis
}
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_ACKS_LATE = True
CELERY_TASK_REJECT_ON_WORKER_LOST = True
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_TASK_PUBLISH_RETRY = False  # a page never waits for Redis: the next tick heals

# --- Logging: ids, never addresses ----------------------------------------------------------------
log_level = env.str("LOG_LEVEL", default="INFO").upper()
if log_level not in (levels := logging.getLevelNamesMapping()):
    raise ImproperlyConfigured(f"LOG_LEVEL must be one of {', '.join(levels)}.")
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "filters": {"tokens": {"()": "config.logs.WithoutTokens"}},
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s %(message)s"}},
    "handlers": {
        "console": {"class": "logging.StreamHandler", "formatter": "line", "filters": ["tokens"]}
    },
    "root": {"handlers": ["console"], "level": log_level},
}
