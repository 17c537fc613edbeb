"""From a trained model to production."""
