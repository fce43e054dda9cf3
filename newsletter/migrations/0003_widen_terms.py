"""Apart from 0002: rows that one transaction has rewritten cannot be updated and then indexed in it."""

from django.db import migrations

# What was planned before had three terms a pick, and neither interests nor sentences.
WIDEN = """
UPDATE newsletter_delivery AS d SET
  terms = ARRAY(
    SELECT term FROM generate_series(0, cardinality(d.paper_ids) - 1) AS pick,
      unnest(ARRAY[0, 0, 0, 0]::real[] || d.terms[pick * 3 + 1 : pick * 3 + 3])
        WITH ORDINALITY AS terms (term, place)
    ORDER BY pick, place),
  interest_ids = array_fill(0::bigint, ARRAY[cardinality(d.paper_ids)]),
  sentences = array_fill(-1::smallint, ARRAY[cardinality(d.paper_ids)])
WHERE cardinality(d.paper_ids) > 0
"""
NARROW = """
UPDATE newsletter_delivery AS d SET
  terms = ARRAY(
    SELECT term FROM generate_series(0, cardinality(d.paper_ids) - 1) AS pick,
      unnest(d.terms[pick * 7 + 5 : pick * 7 + 7]) WITH ORDINALITY AS terms (term, place)
    ORDER BY pick, place)
WHERE cardinality(d.paper_ids) > 0
"""


class Migration(migrations.Migration):

    dependencies = [
        ('newsletter', '0002_feedback_and_rules'),
    ]

    operations = [
        migrations.RunSQL(WIDEN, NARROW),
    ]
