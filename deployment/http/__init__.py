"""What clients speak with an endpoint: SageMaker's runtime protocol over ASGI, bodies, access, metrics, the server."""
