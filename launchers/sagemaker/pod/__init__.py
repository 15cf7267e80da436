"""The process that holds one emulated job's hosts: ``python -m policylab.launchers.sagemaker.pod SPEC.json``.

It stays free of numerical libraries: their threads would keep it from entering a user namespace.
"""
