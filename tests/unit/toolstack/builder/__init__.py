"""Tests of the domain builder."""
