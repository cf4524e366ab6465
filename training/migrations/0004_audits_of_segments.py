"""Audits look at segments of the work; what they find is told by replays. What was an audit before becomes a replay of the
whole work."""

import django.db.models.deletion
import django.db.models.manager
from django.db import migrations, models


def gather(apps, schema_editor):
    """An audit for each piece of work that was replayed."""
    Audit, Replay = apps.get_model("training", "Audit"), apps.get_model("training", "Replay")
    for work in set(Replay.objects.values_list("assignment", flat=True)):
        replays = Replay.objects.filter(assignment=work).order_by("number")
        last = replays.last()
        state = "passed" if last.agrees else "failed"
        audit = Audit.objects.create(assignment_id=work, why=last.why, state=state, deadline=last.at, decided=last.at)
        Audit.objects.filter(pk=audit.pk).update(asked=replays.first().at)
        replays.update(audit=audit)


class Migration(migrations.Migration):
    dependencies = [("training", "0003_pipelined_rounds")]

    operations = [
        migrations.AlterModelManagers(name="round", managers=[]),
        migrations.RemoveConstraint(model_name="round", name="round_number_once_per_run"),
        migrations.AddField(
            model_name="round",
            name="voided",
            field=models.DateTimeField(help_text="When the run went back to an earlier round", null=True),
        ),
        migrations.AddConstraint(
            model_name="round",
            constraint=models.UniqueConstraint(
                condition=models.Q(voided=None), fields=("run", "number"), name="round_number_once_per_run"
            ),
        ),
        migrations.AddField(
            model_name="assignment",
            name="root",
            field=models.CharField(blank=True, default="", help_text="Of the trace that the worker committed to", max_length=64),
            preserve_default=False,
        ),
        migrations.RenameModel("Audit", "Replay"),
        migrations.RemoveConstraint(model_name="replay", name="audit_number_once"),
        migrations.RenameField(model_name="replay", old_name="passed", new_name="agrees"),
        migrations.AlterField(
            model_name="replay",
            name="assignment",
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name="+", to="training.assignment"),
        ),
        migrations.CreateModel(
            name="Audit",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("why", models.TextField()),
                ("drawn", models.JSONField(default=list, help_text="Segments drawn by chance, from 0")),
                ("state", models.CharField(default="asked", max_length=12)),
                ("deadline", models.DateTimeField()),
                ("note", models.TextField(blank=True)),
                ("asked", models.DateTimeField(auto_now_add=True)),
                ("decided", models.DateTimeField(null=True)),
                (
                    "assignment",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.PROTECT, related_name="audit", to="training.assignment"
                    ),
                ),
                (
                    "trace",
                    models.ForeignKey(
                        null=True, on_delete=django.db.models.deletion.PROTECT, related_name="+", to="training.blob"
                    ),
                ),
            ],
            options={"ordering": ["id"]},
        ),
        migrations.AddField(
            model_name="replay",
            name="audit",
            field=models.ForeignKey(
                null=True, on_delete=django.db.models.deletion.PROTECT, related_name="replays", to="training.audit"
            ),
        ),
        # Else the table could not be altered in the same transaction.
        migrations.RunSQL("SET CONSTRAINTS ALL IMMEDIATE", migrations.RunSQL.noop),
        migrations.RunPython(gather, migrations.RunPython.noop),
        migrations.AlterField(
            model_name="replay",
            name="audit",
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name="replays", to="training.audit"),
        ),
        migrations.RemoveField(model_name="replay", name="assignment"),
        migrations.RemoveField(model_name="replay", name="why"),
        migrations.AddField(
            model_name="replay", name="segment", field=models.PositiveIntegerField(default=0), preserve_default=False
        ),
        migrations.AddField(
            model_name="replay", name="start", field=models.CharField(default="", max_length=64), preserve_default=False
        ),
        migrations.AddField(
            model_name="replay", name="claimed", field=models.CharField(default="", max_length=64), preserve_default=False
        ),
        migrations.AddField(
            model_name="replay", name="allowed", field=models.FloatField(default=0.5), preserve_default=False
        ),
        migrations.AddConstraint(
            model_name="replay",
            constraint=models.UniqueConstraint(fields=("audit", "segment", "number"), name="replay_number_once"),
        ),
        migrations.AlterField(
            model_name='assignment',
            name='state',
            field=models.CharField(choices=[('offered', 'Offered'), ('accepted', 'Accepted'), ('committed', 'Committed'), ('rejected', 'rejected: malformed'), ('declined', 'declined by the worker'), ('expired', 'expired: given to someone else'), ('cancelled', 'Cancelled'), ('unproven', 'not shown to an audit'), ('revoked', 'taken out: the provider was convicted'), ('void', 'void: the run went back to an earlier round')], default='offered', max_length=9),
        ),
        migrations.AlterField(
            model_name='audit',
            name='deadline',
            field=models.DateTimeField(help_text='To show the work; later while its worker is busy with another lease'),
        ),
        migrations.AlterField(
            model_name='audit',
            name='state',
            field=models.CharField(choices=[('asked', 'the worker is asked to show its work'), ('shown', 'shown, to be replayed'), ('passed', 'Passed'), ('failed', 'failed: two replays contradict it'), ('inconclusive', 'inconclusive: this job amplifies rounding'), ('unproven', 'the work was not shown')], default='asked', max_length=12),
        ),
        migrations.AlterField(
            model_name='replay',
            name='allowed',
            field=models.FloatField(help_text='The largest relative distance that counts as rounding'),
        ),
        migrations.AlterField(
            model_name='replay',
            name='claimed',
            field=models.CharField(help_text='SHA-256 of the weights that the worker committed to', max_length=64),
        ),
        migrations.AlterField(
            model_name='replay',
            name='number',
            field=models.PositiveSmallIntegerField(help_text='1, or 2 in another process, with other rounding'),
        ),
        migrations.AlterField(
            model_name='replay',
            name='segment',
            field=models.PositiveIntegerField(help_text='From 0'),
        ),
        migrations.AlterField(
            model_name='replay',
            name='start',
            field=models.CharField(help_text='SHA-256 of the weights that it began with', max_length=64),
        ),
        migrations.AddIndex(
            model_name='assignment',
            index=models.Index(condition=models.Q(('state__in', ['offered', 'accepted'])), fields=['provider'], name='assignment_open'),
        ),
        migrations.AddIndex(
            model_name='audit',
            index=models.Index(condition=models.Q(('state', 'asked')), fields=['assignment'], name='audit_asked'),
        ),
    ]
