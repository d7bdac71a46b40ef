"""The built-in `verifiers` environments.

One folder per environment; its `environment.py` has `load_environment(*, seed, num_train, num_eval, weights, ...)`.
All tasks are synthetic: a seeded generator makes them, nothing is downloaded. Every reward component lies
in [-1, 1], the weights are normalised to sum to one, so the reward lies in [-1, 1] as well.

| id | module | turns |
|---|---|---|
| `redteam-attack` | `environments.redteam_attack` | up to three |
| `code-vulnerability` | `environments.code_vulnerability` | one, or several with tools |
| `phishing-detection` | `environments.phishing_detection` | one |
| `config-verification` | `environments.config_verification` | one |
| `network-logs` | `environments.network_logs` | one |
"""
