"""The newest harvests of a source are asked for every minute; to give one up is a right."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("papers", "0005_curating")]

    operations = [
        migrations.AlterModelOptions(
            name="harvest",
            options={
                "ordering": ("-started_at",),
                "permissions": [("give_up_harvest", "Can give up a harvest")],
            },
        ),
        migrations.AddIndex(
            model_name="harvest",
            index=models.Index(fields=["source", "part", "-started_at"], name="harvest_newest"),
        ),
    ]
