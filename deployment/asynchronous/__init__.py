"""Asynchronous endpoints: a durable queue, what executes it, and InvokeEndpointAsync."""
