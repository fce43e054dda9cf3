"""What search asks: the readable text as lexemes, and its words for those who mistype them."""

from django.contrib.postgres.operations import TrigramExtension
from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("papers", "0003_sources")]

    operations = [TrigramExtension()]
