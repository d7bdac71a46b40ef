"""The temperature at which a logprob is taken. Engine, learner and every comparison of the two use these scales.

A logprob at temperature t is `log_softmax(logits / t)[token]`. There are two scales, and logprobs of different scales
are never compared:

| scale | t | logprobs |
|---|---|---|
| sampling | `orchestrator.sampling.temperature` | of the tokens that the policy wrote: the engine's of each completion (vLLM's `processed_logprobs`), the learner's of its training pass and of the reference policy; hence the loss, the entropy, the KL penalty, the `mismatch_kl` of a step, rollout files and `rezero replay` |
| probe | `PROBE_TEMPERATURE` | of a given text: the engine's prompt logprobs and `DeepSpeedLearner.logprobs`; hence the match at the start, the canary, the check of each publication and of a restarted engine, `rezero serve` and `rezero export` |

The probe is scored at 1 because vLLM computes prompt logprobs from the model's logits, whatever the request's
temperature is.
"""  # noqa: E501 - a table

PROBE_TEMPERATURE = 1.0
"""Divides the logits of a text that is scored and not sampled."""

LOWEST_SAMPLING_TEMPERATURE = 0.01
"""vLLM samples at this temperature when a request asks for less (`_MAX_TEMP` in vllm/sampling_params.py). The learner
would divide by the smaller number, so the config refuses it."""
