"""Pictures from where they are, the web or a store: safe in address, bounded, polite."""
