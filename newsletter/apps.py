from django.apps import AppConfig
from django.db.models.signals import post_migrate


class NewsletterConfig(AppConfig):
    name = "newsletter"
    verbose_name = "Newsletter"

    def ready(self) -> None:
        from newsletter import checks, events, roles  # noqa: F401  (they register themselves)

        post_migrate.connect(roles.grant, sender=self)
