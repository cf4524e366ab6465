"""RabbitMQ as the broker of processes whose threads are idle for long, as a web process' are."""

from contextlib import suppress
from typing import Any

from dramatiq.brokers.rabbitmq import RabbitmqBroker
from pika.exceptions import AMQPError


class Rabbit(RabbitmqBroker):
    """Dramatiq's, whose every question finds a connection that is open.

    Each thread has one of its own, and answers RabbitMQ's heartbeats only while it asks for something: RabbitMQ closes the connection of
    one that has been idle for two of them. Dramatiq itself notices where it sends a message; whatever else was asked, such as how much
    waits in a queue, failed from then on in this thread.
    """

    @property
    def channel(self) -> Any:
        self._drop_closed()
        return super().channel

    @channel.deleter
    def channel(self) -> None:
        RabbitmqBroker.channel.fdel(self)

    def _drop_closed(self) -> None:
        """What has come in meanwhile is read first, so that an end is known; it costs no round trip."""
        connection, channel = getattr(self.state, "connection", None), getattr(self.state, "channel", None)
        with suppress(AMQPError):
            if connection and connection.is_open:
                connection.process_data_events()
        if connection and not connection.is_open:
            self.hang_up()
        elif channel and not channel.is_open:
            del self.channel

    def hang_up(self) -> None:
        """This thread's connection, if it has one. Before a thread ends: it would stay open, and be kept, for the life of the process."""
        del self.connection
