"""Requests to AWS as plain dicts: how they are read and checked before anything is sent."""
