"""The service: an HTTP API, a durable queue, workers, metering. Each part runs and restarts on its own."""
