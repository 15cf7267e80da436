"""Supply chains: an inventory with an exact optimum, a newsvendor, a serial chain; their ordering rules."""
