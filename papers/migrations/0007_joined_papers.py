"""Two papers may turn out to be one: the names of the one that went lead to the other."""

import django.db.models.deletion
import django.utils.timezone
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("papers", "0006_harvest_newest")]

    operations = [
        migrations.CreateModel(
            name="PaperAlias",
            fields=[
                ("old_id", models.BigIntegerField(primary_key=True, serialize=False)),
                ("uuid", models.UUIDField(unique=True)),
                ("joined_at", models.DateTimeField(default=django.utils.timezone.now)),
                (
                    "paper",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="aliases",
                        to="papers.paper",
                    ),
                ),
            ],
        ),
        migrations.AddField(
            model_name="harvest",
            name="joined",
            field=models.PositiveIntegerField(
                default=0, help_text="Times that two papers turned out to be one."
            ),
        ),
    ]
