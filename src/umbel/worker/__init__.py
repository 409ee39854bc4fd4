"""The worker: a supervisor that forks, a consumer that leases and settles, executors that run tasks."""
