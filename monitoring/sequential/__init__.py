"""Streams watched value by value: cumulative sums whose false alarms are as rare as asked, and an always valid test."""
