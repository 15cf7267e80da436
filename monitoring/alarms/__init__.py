"""Alarms: what checks measured, the thresholds it is held against, who is told, and what is done."""
