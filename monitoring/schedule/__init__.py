"""Checks that run by themselves: the monitor file, windows of time, live watching, and SageMaker schedules."""
