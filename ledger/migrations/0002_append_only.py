"""Transfers and chain events are append-only: the database itself refuses to change or delete a transfer."""

from django.db import migrations

REFUSE = """
create function ledger_refuse() returns trigger language plpgsql as $$
begin
    raise exception 'the ledger is append-only: % on % refused', tg_op, tg_table_name;
end $$;
create trigger ledger_transfer_append_only before update or delete on ledger_transfer
    for each row execute function ledger_refuse();
"""
ALLOW = """
drop trigger ledger_transfer_append_only on ledger_transfer;
drop function ledger_refuse();
"""


class Migration(migrations.Migration):
    dependencies = [("ledger", "0001_initial")]
    operations = [migrations.RunSQL(REFUSE, ALLOW)]
