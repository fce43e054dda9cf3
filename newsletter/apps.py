from django.apps import AppConfig
from django.contrib.auth.signals import user_logged_in
from django.db.models.signals import post_migrate


class NewsletterConfig(AppConfig):
    name = "newsletter"
    verbose_name = "Newsletter"

    def ready(self) -> None:
        from newsletter import (  # they register themselves
            checks,  # noqa: F401
            events,  # noqa: F401
            roles,
            sign_in,
        )

        post_migrate.connect(roles.grant, sender=self)
        user_logged_in.connect(sign_in.as_long_as_ever)
