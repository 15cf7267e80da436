"""Model quality: what deployed policies earn, with rewards that come late, against a baseline."""
