"""What every HTML page is made of: facts, charts and tables in sections, one template and one style."""
