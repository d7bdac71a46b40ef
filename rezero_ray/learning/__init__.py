"""What a learner rank computes: the policy's forward pass, its attention, its head, its schedule."""
