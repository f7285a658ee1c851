"""Ablations: a grid of trainings on one store, measured, aggregated over seeds, with teacher costs."""
