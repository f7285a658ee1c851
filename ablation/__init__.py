"""Ablations: a grid of trainings on one store, measured and aggregated over seeds, with the teachers' cost."""
