"""What several environments use: messages read safely, answers parsed, quotes matched, weights, datasets."""
