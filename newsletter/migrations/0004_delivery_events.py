import django.db.models.deletion
import django.db.models.functions.datetime
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('newsletter', '0003_widen_terms'),
    ]

    operations = [
        migrations.CreateModel(
            name='DeliveryEvent',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('event_id', models.CharField(blank=True, help_text="The provider's, if any.", max_length=255)),
                ('content_digest', models.CharField(editable=False, max_length=64, unique=True)),
                ('source', models.CharField(help_text="A provider's name, smtp or mailbox.", max_length=64)),
                ('kind', models.CharField(choices=[('queued', 'Queued'), ('sent', 'Sent'), ('rejected', 'Rejected'), ('failed', 'Failed'), ('bounced', 'Bounced'), ('deferred', 'Deferred'), ('delivered', 'Delivered'), ('autoresponded', 'Autoresponded'), ('opened', 'Opened'), ('clicked', 'Clicked'), ('complained', 'Complained'), ('unsubscribed', 'Unsubscribed'), ('subscribed', 'Subscribed'), ('unknown', 'Unknown')], max_length=16)),
                ('cause', models.CharField(blank=True, choices=[('invalid', 'invalid address'), ('complaint', 'Complaint'), ('mailbox', 'mailbox full or closed'), ('content', 'Content'), ('policy', 'policy or reputation'), ('sender', 'refusal of the sender'), ('soft', 'unclassified')], max_length=12)),
                ('delivery_uuid', models.UUIDField(blank=True, null=True)),
                ('message_id', models.CharField(blank=True, max_length=255)),
                ('address_hash', models.CharField(blank=True, max_length=64)),
                ('detail', models.TextField(blank=True)),
                ('occurred_at', models.DateTimeField()),
                ('received_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ('retry_at', models.DateTimeField(blank=True, null=True)),
                ('processed_at', models.DateTimeField(blank=True, null=True)),
                ('outcome', models.CharField(blank=True, help_text='What followed from it.', max_length=255)),
                ('delivery', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.CASCADE, related_name='events', to='newsletter.delivery')),
            ],
            options={
                'ordering': ('-id',),
                'indexes': [models.Index(condition=models.Q(('processed_at', None)), fields=['id'], name='deliveryevent_pending')],
                'constraints': [
                    models.CheckConstraint(condition=models.Q(('kind__in', ['queued', 'sent', 'rejected', 'failed', 'bounced', 'deferred', 'delivered', 'autoresponded', 'opened', 'clicked', 'complained', 'unsubscribed', 'subscribed', 'unknown'])), name='deliveryevent_kind_known'),
                    models.CheckConstraint(condition=models.Q(('cause__in', ['', 'invalid', 'complaint', 'mailbox', 'content', 'policy', 'sender', 'soft'])), name='deliveryevent_cause_known'),
                ],
            },
        ),
        migrations.AddIndex(
            model_name='delivery',
            index=models.Index(condition=models.Q(('provider_id', ''), _negated=True), fields=['provider_id'], name='delivery_provider_id'),
        ),
    ]
