"""Endpoints on SageMaker: the requests of an endpoint file, what they cannot express, and the verbs that send them."""
