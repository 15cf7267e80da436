"""Endpoints of many models, loaded when they are asked and unloaded when memory is short."""
