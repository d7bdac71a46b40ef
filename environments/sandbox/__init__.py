"""Running code that a model wrote: `sandbox.Sandbox` in front, the launcher and the three tiers behind it."""
