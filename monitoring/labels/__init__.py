"""Labels of people on what policies did, and the reward models that are trained on them."""
