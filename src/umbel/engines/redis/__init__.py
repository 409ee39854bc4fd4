"""The Redis engine: broker, store and bus in one Redis or Valkey that Celery may share."""
