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
            joined,
            roles,
            sign_in,
        )
        from papers.joining import joined as papers_joined

        papers_joined.connect(joined.settle)
        post_migrate.connect(roles.grant, sender=self)
        user_logged_in.connect(sign_in.as_long_as_ever)
