"""A container on Modal. Never put `infra/` itself on the import path: this folder would hide the `modal` package."""
