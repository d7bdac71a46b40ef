"""Mamba-2 over packed sequences that may share their prompt.

A mixer of Transformers runs its convolution and its scan over the whole axis: packed sequences would go on in each
other's state. Here each segment (`rezero_ray.learning.attention`) begins with nothing, or with what its prefix ended
with: the last inputs of the convolution, and the state of the scan. The projections, which hold nearly all weights,
are one call each on the whole axis, so ZeRO-3 gathers them once a layer however many segments a rank has, and all
ranks gather in step.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import nn

from rezero_ray.learning.segment_tree import Segment

RECURRENT = frozenset({"linear_attention", "mamba"})


def separate_segments(model: Any) -> None:
    """Give every Mamba-2 mixer of a Nemotron-H model the forward pass of this module; other models stay as they are.

    Names, weights and adapters of the mixers stay too.

    Raises:
        ValueError: the model has recurrent layers of another kind.
    """
    if not RECURRENT & set(getattr(model.config, "layer_types", None) or ()):
        return
    if model.config.model_type != "nemotron_h":
        raise ValueError(
            f"the recurrent layers of {model.config.model_type} would carry state between sequences"
        )
    kind = _segment_mixer()
    for module in model.modules():
        if type(module) is kind.__mro__[1]:
            module.__class__ = kind


@cache
def _segment_mixer() -> type[nn.Module]:
    from transformers.models.nemotron_h import modeling_nemotron_h as nemotron_h

    class SegmentMixer(nemotron_h.NemotronHMamba2Mixer):
        """The mixer, for a pack of segments; no cache, no padding."""

        def forward(
            self, hidden_states: torch.Tensor, *, segments: Sequence[Segment], **_: Any
        ) -> torch.Tensor:
            """hidden_states [1, T, hidden] -> [1, T, hidden]; segments as `segment_attention` takes them."""
            widths = [self.intermediate_size, self.conv_dim, self.num_heads]
            gate, channels, steps = self.in_proj(hidden_states).split(widths, dim=-1)
            lengths = [end - start for start, end, _, _ in segments]
            number = {(start, end): index for index, (start, end, _, _) in enumerate(segments)}
            inputs, rates = channels.split(lengths, dim=1), steps.split(lengths, dim=1)
            prefixes = {number[segment[2:]] for segment in segments if segment[2] != segment[3]}
            ends: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
            outputs = []
            for index, segment in enumerate(segments):
                before = ends[number[segment[2:]]] if segment[2] != segment[3] else None
                scanned, end = self._segment(inputs[index], rates[index], before)
                outputs.append(scanned)
                if index in prefixes:
                    ends[index] = end
            mixed = self.norm(torch.cat(outputs, dim=1), gate)
            return self.out_proj(mixed.to(hidden_states.dtype))

        def _segment(
            self,
            channels: torch.Tensor,
            steps: torch.Tensor,
            before: tuple[torch.Tensor, torch.Tensor] | None,
        ) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
            """channels [1, L, C], steps [1, L, H] -> outputs [1, L, inner], and what a continuation begins with."""
            length, reach = channels.shape[1], self.conv_kernel_size - 1
            tail, state = before or (channels.new_zeros(1, reach, channels.shape[2]), None)
            known = torch.cat((tail, channels), dim=1)
            convolved = nemotron_h.causal_conv1d_fn(
                known.transpose(1, 2),
                self.conv1d.weight.squeeze(1),
                self.conv1d.bias,
                activation=self.activation,
            )
            parts = [self.intermediate_size] + 2 * [self.n_groups * self.ssm_state_size]
            values, keys, queries = convolved.transpose(1, 2)[:, reach:].split(parts, dim=-1)
            scanned, state = nemotron_h.mamba2_chunk_scan(
                values.reshape(1, length, self.num_heads, self.head_dim),
                steps,
                -torch.exp(self.A_log.float()),
                keys.reshape(1, length, self.n_groups, self.ssm_state_size),
                queries.reshape(1, length, self.n_groups, self.ssm_state_size),
                chunk_size=self.chunk_size,
                D=self.D,
                dt_bias=self.dt_bias,
                dt_softplus=True,
                dt_limit=tuple(self.config.time_step_limit),
                initial_states=state,
                return_final_states=True,
            )
            return scanned.reshape(1, length, -1), (known[:, -reach:], state)

    return SegmentMixer
