"""How a new version takes over: rollouts in steps, alarms, evidence from rewards, and A/B comparisons."""
