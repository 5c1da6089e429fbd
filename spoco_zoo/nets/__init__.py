"""Networks, their geometry, and a trained model in memory."""
