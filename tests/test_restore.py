"""The restore drill: everything is lost in the middle of a training, and the providers are paid all the same."""

from collections import Counter

import pytest

from contracts.chain import Chain, Deployment, connect
from dmlsite.embedded import Layout, ServerError, start_postgres
from scripts import backup
from scripts.restore_drill import Drill


class Watched(Drill):
    """Looks at the chain before it is stopped."""

    events = Counter()

    def _paid(self, customer, ticket, chain):
        last = super()._paid(customer, ticket, chain)
        on = Chain(connect(self.platform.rpc_url), Deployment.load(self.platform.layout.var / "deployment.json"))
        found = on.events(on.deployment.block, on.head().number)
        self.events = Counter(event.name for event in found if str(event.args.get("ticket")) == ticket["id"])
        return last


@pytest.mark.embedded
def test_a_half_done_ticket_is_paid_after_everything_was_lost(tmp_path):
    drill = Watched(tmp_path, print)
    last = drill.run()
    assert last["status"] == "settled"
    assert (drill.events["Paid"], drill.events["Settled"], drill.events["Refunded"]) == (1, 1, 0)
    assert not (tmp_path / "before").exists()


@pytest.mark.embedded
def test_what_is_not_empty_is_not_written_over(tmp_path):
    layout = Layout(tmp_path)
    server = start_postgres(layout)
    try:
        (tmp_path / "files").mkdir()
        import psycopg

        with psycopg.connect(layout.database_url) as connection:
            connection.execute("create table kept (n int)")
        backup.dump(tmp_path / "backup", layout.database_url, tmp_path / "files")
        with pytest.raises(ServerError, match="already exists"):
            backup.restore(tmp_path / "backup", layout.database_url, tmp_path / "files")
    finally:
        server.stop()
