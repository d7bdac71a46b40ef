"""What a person sees of a run: the console, MLflow, the report. Metrics of a step are made in `step_metrics`."""
