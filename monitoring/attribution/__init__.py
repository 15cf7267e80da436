"""Which features a policy decides by, and whether their ranking has drifted."""
