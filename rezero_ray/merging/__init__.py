"""A base model and a LoRA adapter as one model: its files (`files`), and what is left of the adapter (`effect`)."""
