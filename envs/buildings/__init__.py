"""Heating and cooling: a model of our own, its exact table, EnergyPlus; thermostats and controllers."""
