"""Trains under a seeded schedule of faults, and checks that nothing was lost or doubled."""
