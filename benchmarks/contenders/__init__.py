"""How each contender does each work, one module for each contender."""
