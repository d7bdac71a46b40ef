"""What MLflow accepts as a name, and where the store of a run lies. MLflow itself is not imported."""
