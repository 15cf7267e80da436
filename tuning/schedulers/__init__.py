"""Schedulers: what a study spends on next. See `policylab.tuning.scheduler.SCHEDULERS` for their names."""
