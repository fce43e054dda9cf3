"""What search asks: the readable text as lexemes, and its words for those who mistype them.

Triggers keep the lexemes, so no writer of papers can forget to. They are no generated column: a
paper's row is wide and read everywhere, and array_to_string is not immutable.
"""

import django.contrib.postgres.indexes
import django.contrib.postgres.operations
import django.contrib.postgres.search
import django.db.models.deletion
from django.core.management.base import CommandError
from django.db import DatabaseError, migrations, models


def check_encoding(apps, schema_editor):
    """normalize() knows no other encoding, and says so in fewer words."""
    with schema_editor.connection.cursor() as cursor:
        cursor.execute("SHOW server_encoding")
        (encoding,) = cursor.fetchone()
    if encoding != "UTF8":
        name = schema_editor.connection.settings_dict["NAME"]
        raise CommandError(
            f"The database {name} has the encoding {encoding}; search needs UTF8. Make a new one "
            "(`CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0`), and bring there what this "
            "one has with pg_dump and pg_restore."
        )


class TrigramExtension(django.contrib.postgres.operations.TrigramExtension):
    """Passes without any rights where the extension is there already."""

    def database_forwards(self, app_label, schema_editor, from_state, to_state):
        try:
            super().database_forwards(app_label, schema_editor, from_state, to_state)
        except DatabaseError as error:
            name = schema_editor.connection.settings_dict["NAME"]
            raise CommandError(
                "PostgreSQL's extension pg_trgm is not in this database, and could not be added: "
                f"{str(error).splitlines()[0]}. Install PostgreSQL's contrib package on the "
                f"database server, run `CREATE EXTENSION pg_trgm;` in the database {name} as its "
                "owner or a superuser, once, and then this command again."
            ) from None

    def database_backwards(self, app_label, schema_editor, from_state, to_state):
        """It may have been there before, and others may use it: it stays."""


# The same for papers and queries: no accents, no ligatures, and nothing that PostgreSQL's parser
# would take for a tag, an address, a path, a sign or a compound: GPT-4 is gpt and 4, wherever.
# Letters with a stroke do not decompose. 50,000 characters: a tsvector holds a megabyte. A text of
# ASCII, as most are, is spared the folding; translate() would take longer than all the rest.
FUNCTIONS = r"""
CREATE FUNCTION papers_folded(words text) RETURNS text
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN normalize(
    regexp_replace(
        replace(replace(replace(replace(replace(replace(replace(replace(replace(replace(
            normalize(words, NFKD),
            'ß', 'ss'), 'æ', 'ae'), 'œ', 'oe'), 'ø', 'o'), 'Ø', 'O'), 'ł', 'l'), 'Ł', 'L'), 'đ', 'd'),
            'Đ', 'D'), 'ı', 'i'
        ),
        '[\u0300-\u036f]+', '', 'g'
    ),
    NFC
);

CREATE FUNCTION papers_plain(words text) RETURNS text
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN regexp_replace(
    CASE WHEN octet_length(words) = length(words) THEN left(words, 50000)
        ELSE papers_folded(left(words, 50000)) END,
    '[-\\/_@:&<>+~=|*#%^\u2010-\u2014\u2212]|\.(?![0-9])|(?<![0-9])\.', ' ', 'g'
);

CREATE FUNCTION papers_lexemes(words text) RETURNS tsvector
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN to_tsvector('pg_catalog.english', papers_plain(words));

CREATE FUNCTION papers_lexemes(title text, authors text[], abstract text) RETURNS tsvector
LANGUAGE sql STABLE STRICT PARALLEL SAFE
RETURN setweight(papers_lexemes(title), 'A')
    || setweight(papers_lexemes(array_to_string(authors, ' , ')), 'B')
    || papers_lexemes(abstract);

CREATE FUNCTION papers_index() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.withdrawn_on IS NOT NULL THEN
        DELETE FROM papers_searchtext WHERE paper_id = NEW.id;
    ELSE
        INSERT INTO papers_searchtext (paper_id, title, lexemes) VALUES (
            NEW.id,
            papers_lexemes(NEW.title),
            papers_lexemes(NEW.title, NEW.authors, NEW.abstract)
        )
        ON CONFLICT (paper_id) DO UPDATE SET title = excluded.title, lexemes = excluded.lexemes;
    END IF;
    RETURN NULL;
END
$$;
"""

TRIGGERS = """
CREATE TRIGGER papers_index_new AFTER INSERT ON papers_paper
    FOR EACH ROW EXECUTE FUNCTION papers_index();
CREATE TRIGGER papers_index_changed AFTER UPDATE ON papers_paper
    FOR EACH ROW WHEN (
        (OLD.title, OLD.abstract, OLD.authors, OLD.withdrawn_on)
        IS DISTINCT FROM (NEW.title, NEW.abstract, NEW.authors, NEW.withdrawn_on)
    ) EXECUTE FUNCTION papers_index();
"""

DROP = """
DROP TRIGGER papers_index_new ON papers_paper;
DROP TRIGGER papers_index_changed ON papers_paper;
DROP FUNCTION papers_index();
DROP FUNCTION papers_lexemes(text, text[], text);
DROP FUNCTION papers_lexemes(text);
DROP FUNCTION papers_plain(text);
DROP FUNCTION papers_folded(text);
"""

# Lexemes stay in the row, where ranking reads thousands: out of it, each would be a look-up and a
# decompression. Then what is there already; its checks come before the indexes are made.
FILL = """
ALTER TABLE papers_searchtext SET (toast_tuple_target = 8160);
ALTER TABLE papers_searchtext ALTER COLUMN lexemes SET STORAGE MAIN;
INSERT INTO papers_searchtext (paper_id, title, lexemes)
    SELECT id, papers_lexemes(title), papers_lexemes(title, authors, abstract)
    FROM papers_paper WHERE withdrawn_on IS NULL;
SET CONSTRAINTS ALL IMMEDIATE;
"""


class Migration(migrations.Migration):
    dependencies = [("papers", "0003_sources")]

    operations = [
        migrations.RunPython(check_encoding, migrations.RunPython.noop),
        TrigramExtension(),
        migrations.CreateModel(
            name="SearchText",
            fields=[
                (
                    "paper",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE,
                        primary_key=True,
                        related_name="search_text",
                        serialize=False,
                        to="papers.paper",
                    ),
                ),
                ("title", django.contrib.postgres.search.SearchVectorField()),
                (
                    "lexemes",
                    django.contrib.postgres.search.SearchVectorField(
                        help_text="Of the title (A), the authors (B), the abstract (D)."
                    ),
                ),
            ],
        ),
        migrations.CreateModel(
            name="SearchWord",
            fields=[
                ("word", models.TextField(primary_key=True, serialize=False)),
                ("lexeme", models.TextField(db_index=True)),
                ("papers", models.PositiveIntegerField()),
            ],
        ),
        migrations.RunSQL(FUNCTIONS + TRIGGERS, DROP),
        migrations.RunSQL(FILL, migrations.RunSQL.noop),
        migrations.AddIndex(
            model_name="searchtext",
            index=django.contrib.postgres.indexes.GinIndex(
                fastupdate=False, fields=["lexemes"], name="search_text_lexemes"
            ),
        ),
        migrations.AddIndex(
            model_name="searchtext",
            index=django.contrib.postgres.indexes.GinIndex(
                fastupdate=False, fields=["title"], name="search_text_title"
            ),
        ),
        migrations.AddIndex(
            model_name="searchword",
            index=django.contrib.postgres.indexes.GinIndex(
                fields=["word"], name="search_word_trigrams", opclasses=["gin_trgm_ops"]
            ),
        ),
    ]
