"""Dialogs: slot filling with a simulated user, small exact versions, handcrafted rules."""
