"""RabbitMQ: messages wait in its queues; connections, topology and the message mapping are py-amqp and our own frames."""
