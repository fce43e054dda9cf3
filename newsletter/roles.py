"""The two groups of people who work in the admin, and the rights each needs."""

from __future__ import annotations

from typing import Any

from django.apps import AppConfig

Rights = dict[str, dict[str, tuple[str, ...]]]  # app -> model -> verbs

CURATORS: Rights = {
    "papers": {
        "paper": ("view", "add", "change"),
        "edition": ("view", "add", "change", "freeze"),
        "editionpaper": ("view", "add", "change"),
        "signal": ("view",),
        "sourcerecord": ("view",),
        "harvest": ("view",),
    },
    "newsletter": {"submission": ("view", "decide")},
}
OPERATORS: Rights = {
    "papers": {
        "paper": ("view",),
        "edition": ("view",),
        "editionpaper": ("view",),
        "signal": ("view",),
        "sourcerecord": ("view",),
        "harvest": ("view", "give_up"),
    },
    "newsletter": {
        "subscriber": ("view", "change"),
        "interest": ("view", "add", "change", "delete"),
        "feedback": ("view",),
        "rankingmodel": ("view",),
        "delivery": ("view", "settle"),
        "deliveryevent": ("view",),
        "sendingpause": ("view", "add", "resume"),
        "alert": ("view",),
        "suppression": ("view", "delete"),
        "consentrecord": ("view",),
        "submission": ("view",),
    },
}
GROUPS = {"curators": CURATORS, "operators": OPERATORS}


def grant(sender: AppConfig, **options: Any) -> None:
    """Make the groups and give them their rights, after each migration; take none away."""
    from django.contrib.auth.management import create_permissions
    from django.contrib.auth.models import Group, Permission

    try:
        options.get("apps", sender.apps).get_model("auth", "Group")  # type: ignore[union-attr]
    except LookupError:
        return  # `migrate papers` on a new database: there are no groups yet
    # Rights are made by a handler of the same signal, which may run after this one.
    for label in ("papers", "newsletter"):
        create_permissions(sender.apps.get_app_config(label), verbosity=0)  # type: ignore[union-attr]
    for name, apps in GROUPS.items():
        group, _ = Group.objects.get_or_create(name=name)
        for label, models in apps.items():
            for model, verbs in models.items():
                group.permissions.add(
                    *Permission.objects.filter(
                        content_type__app_label=label,
                        codename__in=[f"{verb}_{model}" for verb in verbs],
                    )
                )
