"""Ablations: a grid of trainings on one store, evaluated and aggregated over seeds, with teacher costs."""
