from django.db import migrations, models
from django.db.models import F


def mark(apps, schema_editor):
    """Until now the formats were made before a run was done, and the mail went out with the card."""
    done = apps.get_model("training", "Run").objects.filter(state="done")
    done.update(converted=F("finished"))
    mailed = apps.get_model("tickets", "Mail").objects.filter(kind="done").values("ticket")
    done.filter(ticket__in=mailed).update(delivered=F("finished"))


class Migration(migrations.Migration):

    dependencies = [
        ('tickets', '0013_own_models'),
        ('training', '0014_score'),
    ]

    operations = [
        migrations.AddField(
            model_name='run',
            name='converted',
            field=models.DateTimeField(help_text="When the model's other formats were made, or given up", null=True),
        ),
        migrations.AddField(
            model_name='run',
            name='delivered',
            field=models.DateTimeField(help_text='When the customer had all files, the card being the last', null=True),
        ),
        migrations.RunPython(mark, migrations.RunPython.noop),
    ]
