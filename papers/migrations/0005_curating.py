"""Who did what to an edition, and who holds it."""

import django.core.validators
import django.db.models.deletion
import django.utils.timezone
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("papers", "0004_search")]

    operations = [
        migrations.AddField(
            model_name="edition",
            name="held_at",
            field=models.DateTimeField(blank=True, null=True),
        ),
        migrations.AddField(
            model_name="edition",
            name="held_by",
            field=models.CharField(blank=True, max_length=150),
        ),
        migrations.AlterField(
            model_name="editionpaper",
            name="note",
            field=models.TextField(
                blank=True,
                help_text="The editor's word, shown with the paper: Markdown.",
                validators=[django.core.validators.MaxLengthValidator(1000)],
            ),
        ),
        migrations.CreateModel(
            name="CurationRecord",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("at", models.DateTimeField(default=django.utils.timezone.now)),
                (
                    "by",
                    models.CharField(
                        blank=True, help_text="Empty: the service itself.", max_length=150
                    ),
                ),
                ("what", models.TextField()),
                (
                    "edition",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="curation_records",
                        to="papers.edition",
                    ),
                ),
            ],
            options={"ordering": ("-at", "-id")},
        ),
    ]
